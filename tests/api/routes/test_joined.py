"""Joining the console's modules into one file."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from api.routes.pages.joined import digest_of, joined_script

FILES = {
    "main.js": 'import { twice as double, Pair } from "./lib/math.js";\n'
    'import { one } from "./lib/one.js";\nconsole.log(double(one), new Pair().sum);\n',
    "lib/math.js": 'import { one } from "./one.js";\nconst hidden = 2;\n'
    "export function twice(x) {\n  return x * hidden;\n}\n"
    "export class Pair {\n  sum = one + hidden;\n}\n",
    "lib/one.js": 'export const one = 1;\nconst hidden = "of this file";\n',
}


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_joined_script_does_what_the_modules_do(tmp_path: Path) -> None:
    script = joined_script(written(tmp_path, FILES), "main.js")
    argv = ["node", "--input-type=module", "-"]
    assert subprocess.run(argv, input=script, capture_output=True, check=True).stdout == b"2 3\n"


def test_each_module_is_joined_once_after_those_that_it_imports(tmp_path: Path) -> None:
    text = joined_script(written(tmp_path, FILES), "main.js").decode()
    places = [text.index(f"// {name}\n") for name in ("lib/one.js", "lib/math.js", "main.js")]
    assert places == sorted(places)
    assert text.count("// lib/one.js\n") == 1


@pytest.mark.parametrize(
    "line",
    [
        'import * as all from "./lib/one.js";',
        'import { x } from "elsewhere";',
        "export default 1;",
        "export let x = 1;",
        'export { one } from "./lib/one.js";',
    ],
)
def test_other_forms_of_imports_and_exports_are_refused(tmp_path: Path, line: str) -> None:
    written(tmp_path, {**FILES, "main.js": line + "\n"})
    with pytest.raises(ValueError, match=r"main\.js: this form can't be joined"):
        joined_script(tmp_path, "main.js")


def test_modules_that_import_each_other_are_refused(tmp_path: Path) -> None:
    one = 'import { twice } from "./math.js";\nexport const one = twice(1);\n'
    written(tmp_path, {**FILES, "lib/one.js": one})
    with pytest.raises(ValueError, match="imports itself"):
        joined_script(tmp_path, "main.js")


def test_the_digest_changes_with_names_and_contents() -> None:
    digests = {
        digest_of(files) for files in ({"a": b"bc"}, {"ab": b"c"}, {"a": b"b", "c": b""}, {})
    }
    assert len(digests) == 4
    assert digest_of({}) == hashlib.sha256().hexdigest()[:12]
