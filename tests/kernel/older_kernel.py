"""netmond as on a kernel before 6.6, and so the workers of its captures."""

from __future__ import annotations

import sys
from dataclasses import replace

from netmond.__main__ import main
from netmond.sessions import kinds
from tests.kernel import no_tcx  # noqa: F401

kinds.KINDS = {
    **kinds.KINDS,
    "capture": replace(kinds.KINDS["capture"], module="tests.kernel.older_worker"),
}
sys.exit(main())
