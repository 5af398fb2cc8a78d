"""Joins the console's files, so that a browser needs few requests until the first useful paint.

The modules in `api/static` import each other by `import { a, b as c } from "./file.js";` only, and
export functions, classes and constants where they are declared. No build step is needed.
"""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

_IMPORT = re.compile(r'^import \{([^}]*)\} from "(\.[^"]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function\*?|class|const) (\w+))", re.MULTILINE)
_OTHER = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)
DIGEST_LENGTH = 12


@dataclass(slots=True)
class _Script:
    """Modules that are joined into one. Each is added once, after the modules that it imports."""

    folder: Path
    names: dict[Path, str] = field(default_factory=dict)
    """For each module, the name of the constant that has its exports."""
    open: list[Path] = field(default_factory=list)
    """Modules whose imports are being added, to detect cycles."""
    parts: list[str] = field(default_factory=list)

    def add(self, path: Path) -> str:
        """Add a module, unless it was added before, and return the name of its constant."""
        if path in self.open:
            raise ValueError(f"{path}: imports itself through {self.open[-1]}")
        if path not in self.names:
            self.open.append(path)
            text = self._without_imports(path)
            self.open.pop()
            self.names[path] = f"module{len(self.names)}"
            self.parts.append(self._part(path, text))
        return self.names[path]

    def _without_imports(self, path: Path) -> str:
        def imported(match: re.Match[str]) -> str:
            names = match[1].replace(" as ", ": ")
            return f"const {{{names}}} = {self.add((path.parent / match[2]).resolve())};"

        return _IMPORT.sub(imported, path.read_text(encoding="utf-8"))

    def _part(self, path: Path, text: str) -> str:
        exports = ", ".join(match[1] for match in _EXPORT.finditer(text))
        text = _EXPORT.sub("", text)
        if other := _OTHER.search(text):
            raise ValueError(f"{path}: this form can't be joined: {other[0]}")
        head = f"// {path.relative_to(self.folder)}\nconst {self.names[path]} = (() => {{"
        return f"{head}\n{text}\nreturn {{ {exports} }};\n}})();\n"


def joined_script(folder: Path, entry: str) -> bytes:
    """Return one JavaScript module with the module `entry` of `folder` and all that it imports.

    Raises:
        ValueError: a module has another form of import or export, or imports itself.
    """
    folder = folder.resolve()
    script = _Script(folder)
    script.add(folder / entry)
    return "\n".join(script.parts).encode()


def joined_styles(folder: Path) -> bytes:
    """Return the style sheets of `folder`, then those of its subfolder `pages`.

    The style sheets of `pages` override the others.
    """
    paths = (*sorted(folder.glob("*.css")), *sorted(folder.glob("pages/*.css")))
    return b"\n".join(path.read_bytes() for path in paths)


def digest_of(files: dict[str, bytes]) -> str:
    """Return hex digits that change with the content of any file."""
    total = hashlib.sha256()
    for name, content in sorted(files.items()):
        total.update(f"{name} {len(content)} ".encode() + content)
    return total.hexdigest()[:DIGEST_LENGTH]
