"""Mark of synthetic images for machines: an XMP packet with IPTC's digital source type.

https://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia; the properties are those of
the IPTC Photo Metadata Standard 2025.1, the packet is as in XMP (ISO 16684-1) without the wrapper.
"""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SYSTEM = "Figment"
_PACKET = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about=""'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' xmlns:dc="http://purl.org/dc/elements/1.1/"'
    f' Iptc4xmpExt:DigitalSourceType="{SYNTHETIC}"'
    "%s/></rdf:RDF></x:xmpmeta>"
)


def xmp(address: str | None) -> bytes:
    """XMP packet, UTF-8: source type, generator, and the address if there is one.

    The generator is the model and its version, as named in the address.
    """
    if address is None:
        return (_PACKET % f' Iptc4xmpExt:AISystemUsed="{SYSTEM}"').encode()
    _, _, model, version, _ = address.split("/", 4)
    return (
        _PACKET
        % (
            f' Iptc4xmpExt:AISystemUsed="{SYSTEM} {model}"'
            f' Iptc4xmpExt:AISystemVersionUsed="{version}"'
            f" dc:identifier={quoteattr(address)}"
        )
    ).encode()
