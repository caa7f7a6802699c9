"""Published portfolios in a directory or an object store: read with verification, publish with the pointer last.

<uri>/models/<model>/<version>/model.onnx       immutable once published
<uri>/revisions/<model>/<revision>.reserved     a spent revision number, created exclusively
<uri>/revisions/<model>/<revision>.json         the manifest
<uri>/revisions/<model>/<revision>.json.minisig its signature, if the publisher signs
<uri>/revisions/<model>/<revision>.profiles/<class>.json           what it costs on one class of processors
<uri>/revisions/<model>/<revision>.profiles/<class>.json.minisig   its signature, if the publisher signs
<uri>/revisions/<model>/current.json            the pointer, written last: it only ever moves forward
"""

from edgefolio.repository.publication import Publication, Published
from edgefolio.repository.reading import Repository

__all__ = ["Publication", "Published", "Repository"]
