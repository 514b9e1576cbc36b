"""Other people's file formats, read into cases and written from them; a file for each."""

from __future__ import annotations

from judge_decoding.labelling.formats.base import Format
from judge_decoding.labelling.formats.label_studio import LABEL_STUDIO
from judge_decoding.labelling.formats.prm800k import PRM800K
from judge_decoding.labelling.formats.processbench import PROCESSBENCH
from judge_decoding.labelling.formats.prodigy import PRODIGY
from judge_decoding.labelling.formats.quotes import QUOTES

FORMATS: dict[str, Format] = {known.name: known for known in (QUOTES, PRM800K, PROCESSBENCH, PRODIGY, LABEL_STUDIO)}
