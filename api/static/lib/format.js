// Numbers, times and sizes as short text.

/** 1234 -> "1,234"; 12345 -> "12.3k". */
export function count(value) {
  if (value < 10_000) return Math.round(value).toLocaleString("en");
  if (value < 999_500) return `${digits(value / 1e3)}k`;
  return value < 999_500_000 ? `${digits(value / 1e6)}M` : `${digits(value / 1e9)}G`;
}

/** Bytes in binary units: "12.5 MiB". */
export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = value < 1 ? 0 : Math.min(Math.floor(Math.log2(value) / 10), units.length - 1);
  return `${digits(value / 1024 ** step)} ${units[step]}`;
}

/** A duration in seconds: "85 ms", "2.5 s", "3 min 20 s", "2 h 5 min". */
export function duration(seconds) {
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.5) return `${digits(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

/** Time of day of a Unix time in seconds: "14:03:09". */
export function clock(time) {
  return new Date(time * 1000).toLocaleTimeString("en-GB");
}

/** A fraction as per cent: 0.256 -> "26%". */
export function percent(fraction) {
  return `${Math.round(fraction * 100)}%`;
}

/** `num` and the noun in singular or plural: plural(1, "job") -> "1 job". */
export function plural(num, noun) {
  return `${count(num)} ${noun}${num === 1 ? "" : "s"}`;
}

function digits(value) {
  return value < 9.95 ? Number(value.toFixed(1)).toString() : Math.round(value).toString();
}
