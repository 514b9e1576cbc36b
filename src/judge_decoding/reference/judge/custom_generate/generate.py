# Judge decoding with the head in this folder; all the code is in the package judge-decoding:
# model.generate(**inputs, custom_generate=THIS_FOLDER, trust_remote_code=True, draft=DRAFT_MODEL)
from judge_decoding.integrations.head_folder import generate_with_head as generate  # noqa: F401
