// Requests of the Compare page, and the same requests as curl and Python. No DOM.

export const NUM_ALTERNATIVES = 5;

/** Body of the chat completion that sends the form's prompt to `model`. */
export function requestBody(form, model) {
  const messages = [{ role: "user", content: form.prompt }];
  if (form.system.trim()) messages.unshift({ role: "system", content: form.system });
  const body = { model, messages };
  for (const name of ["temperature", "max_tokens", "seed"]) {
    if (form[name] !== "") body[name] = Number(form[name]);
  }
  if (form.logprobs) Object.assign(body, { logprobs: true, top_logprobs: NUM_ALTERNATIVES });
  return body;
}

/**
 * The request as commands for a POSIX shell.
 *
 * They read the key from the variable of the command-line clients, which has keys as KEY or TENANT:KEY
 * with commas or white space between them. The first command takes the first one.
 */
export function asCurl(url, body) {
  const json = JSON.stringify({ ...body, stream: true }, null, 2);
  return [
    "key=${LORIKEET_API_KEYS%%[,[:space:]]*}",
    `curl -N ${shellQuoted(url)} \\`,
    '  -H "Authorization: Bearer ${key#*:}" \\',
    `  -H 'Content-Type: application/json' \\`,
    `  -d ${shellQuoted(json)}`,
  ].join("\n");
}

/** The request as a Python script for the package openai. */
export function asPython(baseUrl, body) {
  const fields = Object.entries({ ...body, stream: true });
  return [
    "import os",
    "",
    "from openai import OpenAI",
    "",
    'keys = os.environ.get("LORIKEET_API_KEYS", "").replace(",", " ").split()',
    'key = keys[0].split(":", 1)[-1] if keys else "none"',
    `client = OpenAI(base_url=${literal(baseUrl)}, api_key=key)`,
    "stream = client.chat.completions.create(",
    ...fields.map(([name, value]) => `    ${name}=${literal(value, 1)},`),
    ")",
    "for chunk in stream:",
    "    for choice in chunk.choices:",
    '        print(choice.delta.content or "", end="", flush=True)',
  ].join("\n");
}

function shellQuoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A JSON value as a Python literal. JSON's strings are also Python's. */
function literal(value, depth = 0) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = "    ".repeat(depth + 1);
  const outer = "    ".repeat(depth);
  if (Array.isArray(value)) {
    return `[\n${value.map((each) => `${inner}${literal(each, depth + 1)},\n`).join("")}${outer}]`;
  }
  const items = Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${literal(each, depth + 1)}`);
  return `{${items.join(", ")}}`;
}
