"""External file formats that can be read into cases and mostly also written; one file per format."""

from __future__ import annotations

from judge_decoding.labelling.formats.base import Format
from judge_decoding.labelling.formats.bigbench_mistake import BIGBENCH_MISTAKE
from judge_decoding.labelling.formats.label_studio import LABEL_STUDIO
from judge_decoding.labelling.formats.mr_gsm8k import MR_GSM8K
from judge_decoding.labelling.formats.prm800k import PRM800K
from judge_decoding.labelling.formats.processbench import PROCESSBENCH
from judge_decoding.labelling.formats.prodigy import PRODIGY
from judge_decoding.labelling.formats.quotes import QUOTES

FORMATS: dict[str, Format] = {
    known.name: known for known in (QUOTES, PRM800K, PROCESSBENCH, MR_GSM8K, BIGBENCH_MISTAKE, PRODIGY, LABEL_STUDIO)
}
"""The formats by name."""
