"""Make a draft model from the target's own first layers, trained to imitate the target."""

from __future__ import annotations

import hashlib
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.core.progress import StageProgress
from judge_decoding.core.rounds import Stats
from judge_decoding.core.tracking import Logger, log_fields
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.choices import remaining_context
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import check_output_folders, write_text
from judge_decoding.io.locks import one_run
from judge_decoding.models.abilities import as_causal_lm, check_rewinds
from judge_decoding.models.draft_vocabulary import FILE, cut_head, most_frequent, write_vocabulary
from judge_decoding.models.first_layers import cut_layers
from judge_decoding.models.hidden import output_size
from judge_decoding.models.provenance import fingerprint
from judge_decoding.names import reserved_name
from judge_decoding.rules.exact import Exact
from judge_decoding.training.draft_data import AnswerPart, DraftLoss, TargetAnswers, answer_parts, divide_prompts
from judge_decoding.training.draft_options import DraftConfig, DraftForecast, DraftMeasure, MadeDraft, prompts_hash
from judge_decoding.training.draft_training import MEASUREMENTS, DraftTrainer, train_only

FEW = 200
"""With fewer answers than this, a warning says that the draft was trained on little data."""
DECODED = 32
"""The most held-out prompts on which the finished draft is tried."""
LOGGED = ("training_loss", "loss", "agreement", "mean_acceptance_length")
"""The figures of a measurement that are logged."""
PILOT, REST = "generating a few answers for a forecast", "generating the target's answers"


def make_draft(
    target: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    out: str | Path,
    config: DraftConfig | None = None,
    *,
    agree: Callable[[DraftForecast], bool] = lambda _: True,
    progress: StageProgress = lambda _what, _done, _total: None,
    measured: Callable[[DraftMeasure], None] = lambda _: None,
    logger: Logger | None = None,
) -> MadeDraft:
    """Make a draft model for ``target`` from its own first layers, and save it to ``out``.

    The target answers the prompts. Its first layers, with its embeddings, final norm and output head, are trained to
    reproduce the target's output along these answers. The folder is an ordinary transformers folder that any engine
    loads. With ``config.vocab`` it also holds a list of tokens, and `JudgeDecoder` proposes no others.

    All work is kept in the folder ``<out>.work``: after an interruption, the same call resumes. The answers stay there.

    Args:
        target: the target model, on one device and not quantised.
        tokenizer: its tokenizer.
        prompts: whole prompts, as the target reads them.
        out: folder for the draft.
        config: how to make it.
        agree: called with the forecast before the cost is incurred; if it returns False, the work stops.
        progress: called with the name of the current stage, how much of it is done, and its total.
        measured: called with each measurement on the held-out answers.
        logger: receives each measurement at its step; see `log_to`.

    Raises:
        JudgeDecodingError: the folder cannot be written, there are too few prompts or too long ones, the target's
            layers cannot be cut, the vocabulary leaves out an end token, peft is missing, the forecast is not agreed
            to, another run is using the folder, or the earlier work in it has other settings.
    """
    config, out, target = config or DraftConfig(), Path(out), as_causal_lm(target)
    work = check_output_folders(out, "a draft", "answers.jsonl")
    teaching, held_out = divide_prompts(prompts, config)
    if config.lora and find_spec("peft") is None:
        raise JudgeDecodingError("LoRA needs peft; install it with: pip install peft, or leave lora (--lora) out.")
    check_rewinds(target)
    decoder, size = JudgeDecoder(target, tokenizer), output_size(target)
    if config.vocab:
        most_frequent([], config.vocab, decoder.end_ids, size)  # before the work, because it may raise
    draft = cut_layers(target, config.num_layers)
    ids = {prompt: decoder.encode(prompt)[0].tolist() for prompt in (*teaching, *held_out)}
    for known in ids.values():
        remaining_context(len(known), target)
    with one_run(out):
        settings = _settings(target, config)
        answers = TargetAnswers(work / "answers.jsonl", settings)
        _answer(decoder, draft, ids, len(held_out), answers, config, agree, progress)
        kept = None
        if config.vocab:
            texts = [[*ids[prompt], *answers.done[prompt]] for prompt in teaching]
            kept = most_frequent(texts, config.vocab, decoder.end_ids, size)
            cut_head(draft, kept)
        adapters = _make_trainable(draft, config)
        pieces = [
            answer_parts(i, ids[prompt], answers.done[prompt], size) for i, prompt in enumerate((*teaching, *held_out))
        ]
        measuring = [one for some in pieces[len(teaching) :] for one in some]
        digest = hashlib.sha256("\0".join([*teaching, "", *held_out]).encode()).hexdigest()[:12]
        trainer = DraftTrainer(
            target, draft, pieces[: len(teaching)], measuring, config, work, settings | _training(config, digest)
        )

        def tell(one: DraftMeasure) -> None:
            log_fields(logger, "draft", {name: getattr(one, name) for name in LOGGED}, step=one.step)
            measured(one)

        trainer.train(lambda done, total: progress("training", done, total), tell)
        finished = _saved(target, tokenizer, draft, adapters, kept, config, out, work, prompts_hash(prompts))
        stats = _decoded(JudgeDecoder(target, tokenizer, finished), held_out[:DECODED], config, progress)
        tokens = [token for prompt in held_out for token in answers.done[prompt]]
        trainer.finish()
        count = sum(len(answers.done[prompt]) for prompt in teaching)
        return MadeDraft(
            out, trainer.measures[0], trainer.best, len(teaching), count, len(held_out), config.num_draft_tokens,
            stats.tokens_per_forward, stats.acceptance_rate or 0.0, _cost(stats),
            1.0 if kept is None else float(torch.isin(torch.tensor(tokens), kept).float().mean()),
            _doubts(len(teaching), trainer),
        )  # fmt: skip


def _settings(target: PreTrainedModel, config: DraftConfig) -> dict[str, Any]:
    """The settings on which the target's answers depend."""
    drawn = {"seed": config.seed} if config.temperature else {}
    return {
        "target": str(target.config.name_or_path), "weights": fingerprint(target)[:12], "dtype": str(target.dtype),
        "max_new_tokens": config.max_new_tokens, "temperature": config.temperature, **drawn,
    }  # fmt: skip


def _training(config: DraftConfig, digest: str) -> dict[str, Any]:
    """The further settings on which the weights of the draft depend."""
    names = ("num_layers", "loss", "lora", "embeddings", "vocab", "epochs", "batch_size", "num_draft_tokens", "seed")
    values = {name: getattr(config, name) for name in names}
    return values | {"learning_rate": config.highest_rate, "prompts": digest}


def _answer(
    decoder: JudgeDecoder,
    draft: PreTrainedModel,
    ids: dict[str, list[int]],
    held_out: int,
    answers: TargetAnswers,
    config: DraftConfig,
    agree: Callable[[DraftForecast], bool],
    progress: StageProgress,
) -> None:
    """Let the target answer the remaining prompts: a few first, for the forecast."""

    def generate(some: Sequence[str], what: str, done: int, total: int) -> float:
        begin = time.perf_counter()
        progress(what, done, total)
        for first in range(0, len(some), config.batch_size):
            batch = some[first : first + config.batch_size]
            made = decoder.generate_batch(
                [torch.tensor(ids[prompt]) for prompt in batch], config.max_new_tokens, batch_size=len(batch),
                rule=Exact(), temperature=config.temperature,
                seeds=[_seed_of(prompt, config.seed) for prompt in batch] if config.temperature else None,
            )  # fmt: skip
            for prompt, one in zip(batch, made, strict=True):
                answers.add(prompt, one.token_ids)
            progress(what, done + first + len(batch), total)
        return time.perf_counter() - begin

    todo = [prompt for prompt in ids if prompt not in answers.done]
    few = min(max(len(todo) // 20, 2), config.batch_size)
    if todo:
        generate(todo[:1], PILOT, 0, 1 + few)  # the first forwards of a process are slow, so their time is not used
    seconds = generate(todo[1 : 1 + few], PILOT, 1, 1 + few) if len(todo) > 1 else 0.0
    left = todo[1 + few :]
    known = [answers.done[prompt] for prompt in ids if prompt in answers.done]
    mean = sum(map(len, known)) / len(known)
    trained = config.epochs * mean * (len(ids) - held_out)
    size = output_size(decoder.target)
    examples = [
        answer_parts(i, prompt_ids, answers.done[prompt], size)
        for i, (prompt, prompt_ids) in enumerate(ids.items())
        if prompt in answers.done
    ]
    each = _seconds_a_token(decoder.target, draft, examples[: config.batch_size], config)
    total = seconds / few * len(left) + each * (trained + MEASUREMENTS * mean * held_out)
    if not agree(DraftForecast(len(left), round(mean * len(left)), round(trained), total)):
        raise JudgeDecodingError(f"The run was not confirmed; finished work is kept in {answers.part.parent}.")
    if left:
        generate(left, REST, 0, len(left))


def _seed_of(prompt: str, seed: int) -> int:
    """The seed of one answer: it depends on its prompt alone, not on which others are answered."""
    return int.from_bytes(hashlib.sha256(f"{seed} {prompt}".encode()).digest()[:7], "big")


def _seconds_a_token(
    target: PreTrainedModel, draft: PreTrainedModel, answers: Sequence[Sequence[AnswerPart]], config: DraftConfig
) -> float:
    """Seconds of training per token of an answer, from one timed step that is then discarded."""
    loss, pieces = DraftLoss(target, draft, config.loss), [piece for some in answers for piece in some]
    train_only(draft, embeddings=config.embeddings)
    loss.gradients(pieces[:1])
    begin = time.perf_counter()
    _, count = loss.gradients(pieces)
    seconds = time.perf_counter() - begin
    draft.zero_grad(set_to_none=True)
    return seconds / count


def _make_trainable(draft: PreTrainedModel, config: DraftConfig) -> nn.Module | None:
    """Enable gradients for the parameters to be trained; with LoRA, return the model with its adapters."""
    if config.lora is None:
        train_only(draft, embeddings=config.embeddings)
        return None
    draft.requires_grad_(False)
    import peft  # noqa: PLC0415  (an optional extra, needed for LoRA only)

    how = peft.LoraConfig(r=config.lora, lora_alpha=2 * config.lora, target_modules="all-linear", task_type="CAUSAL_LM")
    cuda = [draft.device] if draft.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), warnings.catch_warnings():
        torch.manual_seed(config.seed)
        warnings.simplefilter("ignore")  # peft uses deprecated names of transformers
        found: nn.Module = peft.get_peft_model(draft, how)
    return found.eval()


def _saved(
    target: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    draft: PreTrainedModel,
    adapters: Any,  # noqa: ANN401  (a class of peft, which may not be installed)
    kept: torch.Tensor | None,
    config: DraftConfig,
    out: Path,
    work: Path,
    prompts: str,
) -> PreTrainedModel:
    """Write the draft to ``out`` with its full head, in the target's dtype; return the draft as it is loaded."""
    folder = work / "draft"
    shutil.rmtree(folder, ignore_errors=True)
    if adapters is not None:
        if config.keep_adapter:
            adapters.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)
        draft = adapters.merge_and_unload()
    finished = cut_layers(target, config.num_layers)
    own = dict(finished.named_parameters())
    with torch.no_grad():
        for name, value in draft.named_parameters():
            if name in own and own[name].shape == value.shape:  # all but a reduced head
                own[name].copy_(value)
    finished.to(dtype=target.dtype).requires_grad_(False)  # type: ignore[call-arg]  # the decorated method lacks self
    finished.config.draft_of = str(target.config.name_or_path)
    finished.config.draft_layers = config.num_layers
    finished.config.draft_prompts = prompts
    if kept is not None:
        finished.config.draft_vocabulary = len(kept)
    finished.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_text(folder / "README.md", _card(target, config))
    if kept is not None:
        write_vocabulary(folder, kept)
    _put(folder, out)
    if kept is not None:
        cut_head(finished, kept)
    finished.eval()
    return finished


def _put(folder: Path, out: Path) -> None:
    """Move a finished model's files to ``out``, its configuration last; remove the weights of an earlier one."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(out)
        return
    for path in (*out.glob("model*.safetensors*"), out / FILE):
        path.unlink(missing_ok=True)
    shutil.rmtree(out / "adapter", ignore_errors=True)
    for path in sorted(folder.iterdir(), key=lambda one: one.name == "config.json"):
        path.replace(out / path.name)
    folder.rmdir()


def _card(target: PreTrainedModel, config: DraftConfig) -> str:
    name = reserved_name(str(target.config.name_or_path)) or "a target without a name"
    cut = (
        f" It proposes the {config.vocab} tokens in `{FILE}` only, where judge-decoding runs it."
        if config.vocab
        else ""
    )
    return (
        f"---\nlibrary_name: transformers\n---\n\nA draft model for {name}, for speculative decoding: the target's "
        f"first {config.num_layers} layers with its embeddings and head, trained on the target's own answers by "
        f"judge-decoding.{cut} It is no model to talk to.\n"
    )


def _decoded(decoder: JudgeDecoder, prompts: Sequence[str], config: DraftConfig, progress: StageProgress) -> Stats:
    """The statistics of greedy decoding with the draft."""
    stats = Stats()
    decoder.generate(prompts[0], 2, rule=Exact(), temperature=0, num_draft_tokens=1)  # the first forwards are slow
    for done, prompt in enumerate(prompts):
        progress("decoding with the draft", done, len(prompts))
        made = decoder.generate(
            prompt, config.max_new_tokens, rule=Exact(), temperature=0, num_draft_tokens=config.num_draft_tokens
        )
        stats.merge(made.stats)
    progress("decoding with the draft", len(prompts), len(prompts))
    return stats


def _cost(stats: Stats) -> float:
    """Time of a draft token divided by the time of a target forward."""
    return stats.seconds.draft / max(stats.drafted, 1) / (stats.seconds.verify / stats.rounds)


def _doubts(answers: int, trainer: DraftTrainer) -> tuple[str, ...]:
    found = []
    if answers < FEW:
        found.append(f"Only {answers} answers were trained on; some hundreds or thousands make a better draft.")
    if trainer.best.step == 0:
        found.append("Training made no measurement better than the layers as they were cut; lower the learning rate.")
    elif trainer.best is trainer.measures[-1] and trainer.best.step == trainer.steps:
        found.append("The last measurement was the best; more epochs may give a better draft.")
    return tuple(found)
