"""Write a software bill of materials (SBOM) for each container image: ``make sbom``.

One CycloneDX JSON file for each image, with the installed packages and the models. Packages of the
base image are not included. Equal sources give equal bytes.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement

from service import __version__
from service.core.manifest import METADATA_KEY, Manifest

ROOT = Path(__file__).parent.parent
IMAGES = ("cpu", "gpu", "ray")
SCHEMA = SchemaVersion.V1_6

# Platform of the images, for the environment markers in the files.
PLATFORM = {"sys_platform": "linux", "python_version": "3.11", "python_full_version": "3.11.0"}


def main(folder: Path) -> None:
    """Write ``figment-IMAGE.cdx.json`` for each image into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in IMAGES:
        path = folder / f"figment-{image}.cdx.json"
        path.write_text(bill(image), encoding="utf-8")
        print(path)


def bill(image: str) -> str:
    """SBOM of an image as JSON. Raises ``ValueError`` if it does not follow the schema."""
    bom = Bom(
        components=[
            *packages(ROOT / f"requirements/serve-{image}.txt"),
            *models(ROOT / "models"),
        ]
    )
    bom.metadata.component = Component(
        type=ComponentType.APPLICATION,
        name="figment",
        version=__version__,
        bom_ref=f"figment-{image}",
        licenses=[DisjunctiveLicense(id="MIT")],
    )
    bom.register_dependency(bom.metadata.component, bom.components)
    bom.serial_number = bom.metadata.timestamp = None  # would differ in each build
    text: str = make_outputter(bom, OutputFormat.JSON, SCHEMA).output_as_string(indent=2)
    if fault := JsonStrictValidator(SCHEMA).validate_str(text):
        raise ValueError(f"the SBOM of the {image} image is invalid: {fault}")
    return text + "\n"


def packages(path: Path) -> Iterator[Component]:
    """Packages of a requirements file with exact versions, each with its allowed hashes."""
    for line in path.read_text().replace("\\\n", "").splitlines():
        specifier, *hashes = line.split("--hash=sha256:")
        package = Requirement(specifier)
        if package.marker and not package.marker.evaluate(PLATFORM):
            continue
        (version,) = (pin.version for pin in package.specifier)
        purl = PackageURL("pypi", name=package.name, version=version)
        yield Component(
            name=package.name,
            version=version,
            purl=purl,
            bom_ref=purl.to_string(),
            external_references=[
                ExternalReference(
                    type=ExternalReferenceType.DISTRIBUTION,
                    url=XsUri(f"https://pypi.org/project/{package.name}/{version}/"),
                    hashes=[_sha256(digest.strip()) for digest in hashes],
                )
            ],
        )


def models(folder: Path) -> Iterator[Component]:
    """Model files, each with its training data and the licence of the data."""
    for path in sorted(folder.glob("*/*/*.onnx")):
        model, version = path.parts[-3:-1]
        manifest = _manifest(path.with_name("model.onnx"))
        dataset = manifest.provenance.dataset
        ref = path.relative_to(folder.parent).as_posix()
        data = Component(
            type=ComponentType.DATA,
            name=dataset.name,
            bom_ref=f"{ref}#data",
            hashes=[_sha256(dataset.sha256)],
            licenses=[DisjunctiveLicense(name=dataset.licence)],
        )
        yield Component(
            type=ComponentType.MACHINE_LEARNING_MODEL,
            group=model,
            name=path.stem,
            version=version,
            bom_ref=ref,
            hashes=[_sha256(hashlib.sha256(path.read_bytes()).hexdigest())],
            pedigree=Pedigree(ancestors=[data]),
        )


def _manifest(path: Path) -> Manifest:
    metadata = onnx.load(path, load_external_data=False).metadata_props
    (text,) = (entry.value for entry in metadata if entry.key == METADATA_KEY)
    return Manifest.model_validate_json(text)


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
