"""All of it: a folder of videos becomes a training set. Stopped anywhere, it goes on there, to the same bytes.

    find        which files there are
    ingest      each file: opened, hashed, decoded once, cut into pieces; one that cannot be is listed with its reason
    look        each clip: decoded once for all measuring stages (and scored, if there is a ranker)
    judge       thresholds, near-duplicates, buckets: from numbers alone
    caption     the clips that are kept
    write       their files, the manifest that training reads, shards

The folder holds, beside what every clip folder has (``manifest.jsonl``, ``world.json``, ``clips``):

    records.jsonl      one line for each clip, kept or not, with all measures and reasons
    rejected.jsonl     one line for each file that nothing came from
    statistics.json    captions and durations of what is kept
    .work              journals of the passes: safe to delete, once the set is finished
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from openltx.data.filling import clean_up, sole_user
from openltx.data.manifest import MANIFEST, WORLD, Clip, read_world, write_atomically, write_world
from openltx.data.prepare.buckets import choose_bucket
from openltx.data.prepare.captioners import Captioner, CaptionStep, captioner_of
from openltx.data.prepare.captions import clean, statistics
from openltx.data.prepare.crop import Crop
from openltx.data.prepare.dedupe import near_duplicates
from openltx.data.prepare.export import ExportStep, clips_of_records, path_of
from openltx.data.prepare.fingerprint import Fingerprint
from openltx.data.prepare.ingest import Ingest, records_of
from openltx.data.prepare.looking import Decoding, LookStep, groups_of, judge
from openltx.data.prepare.motion import Motion
from openltx.data.prepare.overlay import Overlay
from openltx.data.prepare.records import RECORDS, Journal, Record, write_lines, write_records
from openltx.data.prepare.scoring import Aesthetic, ScoreStep
from openltx.data.prepare.settings import PrepareSettings
from openltx.data.prepare.shards import write_shards
from openltx.data.prepare.sharpness import Sharpness
from openltx.data.prepare.stage import Judge, Stage
from openltx.data.prepare.workers import Crash, Processes, Runner, Step
from openltx.data.sources import Rejection, Source, credit_of, find_files
from openltx.errors import DataError

VERSION = 1
REJECTED, STATISTICS, WORK = "rejected.jsonl", "statistics.json", ".work"
CRASHED = "Decoding it kills the process that tries."

Progress = Callable[[str, int, int], None]
Pass = Literal["ingest", "look", "caption", "write"]
PASSES: tuple[Pass, ...] = get_args(Pass)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a run has made."""

    folder: Path
    sources: list[Source]
    records: list[Record]
    rejected: list[Rejection]
    clips: list[Clip]
    shards: list[Path]


def prepare(
    places: Sequence[Path],
    out: Path | str,
    settings: PrepareSettings,
    *,
    runner: Runner | None = None,
    captioner: Captioner | None = None,
    credit: str | None = None,
    until: Pass = "write",
    progress: Progress = lambda *_: None,
) -> Prepared:
    """Make a training set of the videos of ``places`` (files and folders) in folder ``out``.

    With ``until`` it ends after that pass, with the records only: a later call goes on. ``captioner`` replaces the one
    that the settings name. Raises ``DataError`` if a place does not exist, the folder was begun with other cuts or
    another quality, or no clip is left; the records are then written all the same.
    """
    folder = Path(out).resolve()  # workers may have another working directory
    files = find_files([place.resolve() for place in places], out=folder)
    folder.mkdir(parents=True, exist_ok=True)
    with sole_user(folder):
        _check_folder(folder, settings)
        clean_up(folder)
        return _Run(folder, settings, runner or Processes(), captioner, credit, progress).run(files, until)


def stages_of(settings: PrepareSettings) -> tuple[Stage, ...]:
    """What looks at every clip; cropping first, since the others look at what is left."""
    return (
        Crop(settings.crop),
        Motion(settings.motion),
        Sharpness(settings.sharpness),
        Overlay(settings.overlay),
        Fingerprint(),
    )


@dataclass(frozen=True)
class _Run:
    folder: Path
    settings: PrepareSettings
    runner: Runner
    captioner: Captioner | None
    credit: str | None
    progress: Progress

    def run(self, files: Sequence[tuple[Path, str]], until: Pass) -> Prepared:
        wanted = PASSES[: PASSES.index(until) + 1]
        sources, records, rejected = self.ingest(files)
        write_world(self.folder, describe(self.settings, {s.credit for s in sources if s.credit}))
        write_lines(self.folder / REJECTED, map(asdict, rejected))
        paths = {source.sha256: source.path for source in sources}
        if "look" in wanted:
            records = self.decide(self.look(records, paths))
        if "caption" in wanted:
            records = self.caption(records, paths)
        if "write" in wanted:
            records = self.write_clips(records, paths)
        write_records(self.folder, records)
        if "write" not in wanted:
            return Prepared(
                folder=self.folder, sources=sources, records=records, rejected=rejected, clips=[], shards=[]
            )
        kept = [record for record in records if not record.dropped]
        if not kept:
            raise DataError(_nothing_is_left(self.folder, records, rejected))
        clips = clips_of_records(records)
        write_lines(self.folder / MANIFEST, map(asdict, clips))
        self._remove_former(clips)
        write_atomically(self.folder / STATISTICS, (json.dumps(statistics(kept), indent=2) + "\n").encode())
        return Prepared(
            folder=self.folder,
            sources=sources,
            records=records,
            rejected=rejected,
            clips=clips,
            shards=self._shards(clips),
        )

    def ingest(self, files: Sequence[tuple[Path, str]]) -> tuple[list[Source], list[Record], list[Rejection]]:
        """The files that can be used, each content once, their pieces, and the files that cannot."""
        journal = self._journal("ingest", asdict(self.settings.cut))
        keys = [_file_key(path, name) for path, name in files]
        missing = [place for place, key in enumerate(keys) if key not in journal]
        step = Ingest(self.settings.cut)
        for index, result in self._pass("ingest", [step], [files[place] for place in missing], len(files)):
            found = {"rejected": CRASHED} if isinstance(result, Crash) else result
            journal.add(keys[missing[index]], found)
        sources: dict[str, Source] = {}
        records: list[Record] = []
        rejected: list[Rejection] = []
        for (path, name), key in zip(files, keys, strict=True):
            facts = journal[key]
            if "rejected" in facts:
                rejected.append(Rejection(source=name, reason=facts["rejected"]))
            elif facts["sha256"] in sources:
                same = sources[facts["sha256"]].name
                rejected.append(Rejection(source=name, reason=f"It has the same content as {same}."))
            else:
                source = _source(path, name, facts, self.credit)
                sources[source.sha256] = source
                made = records_of(source, facts, self.settings)
                records += made
                if not made:
                    rejected.append(Rejection(source=name, reason=_too_short(facts, self.settings)))
        return list(sources.values()), records, rejected

    def look(self, records: Sequence[Record], paths: dict[str, Path]) -> list[Record]:
        """The records with all measures."""
        journal = self._journal("look", asdict(self.settings.cut))
        ranker, stages = self.settings.aesthetic.ranker, stages_of(self.settings)
        digest = hashlib.sha256(Path(ranker).read_bytes()).hexdigest()[:16] if ranker else None
        names = {stage.name for stage in stages} | ({"aesthetic"} if ranker else set())
        records = [replace(record, measures=_known(journal.get(record.id, {}), names, digest)) for record in records]
        missing = groups_of([r for r in records if "decoding" not in r.measures and names - set(r.measures)], paths)
        steps: list[Step] = [LookStep(stages, self.settings.bucket if ranker else None)]
        if ranker is not None and digest is not None:
            steps.append(ScoreStep(ranker, digest))
        lengths = [len(group.records) for group in missing]
        for index, result in self._pass("look", steps, missing, len(records), lengths):
            crashed = [(record.id, {"decoding": {"failed": CRASHED}}) for record in missing[index].records]
            for name, measured, *_ in crashed if isinstance(result, Crash) else result:
                journal.add(name, measured)
        return [
            replace(record, measures=_known(journal[record.id], {*names, "decoding"}, digest)) for record in records
        ]

    def decide(self, records: Sequence[Record]) -> list[Record]:
        """The records with their buckets, or why they are dropped."""
        judges: list[Judge] = [Decoding(), *stages_of(self.settings), Aesthetic(self.settings.aesthetic)]
        judged = [judge(record, judges) for record in records]
        fitted = [record if record.dropped else _in_bucket(record, self.settings) for record in judged]
        copies = near_duplicates([r for r in fitted if not r.dropped], self.settings.dedupe.max_distance)
        return [
            replace(record, dropped=(f"looks like {copies[record.id][0]}",)) if record.id in copies else record
            for record in fitted
        ]

    def caption(self, records: Sequence[Record], paths: dict[str, Path]) -> list[Record]:
        """The records with captions, of those that are kept."""
        settings = self.settings.caption
        captioner = self.captioner or captioner_of(settings)
        wanted = [record for record in records if not record.dropped]
        captions = {record.id: clean(record.caption, settings.max_words) for record in wanted}
        if captioner is not None:
            made_with = {"by": repr(captioner), "frames": settings.frames, "max_words": settings.max_words}
            journal = self._journal("caption", made_with)
            missing = groups_of([record for record in wanted if record.id not in journal], paths)
            runner = Processes(1) if settings.backend == "model" and isinstance(self.runner, Processes) else self.runner
            step = CaptionStep(captioner, settings.frames, settings.max_words)
            lengths = [len(group.records) for group in missing]
            for _, result in self._pass("caption", [step], missing, len(wanted), lengths, runner):
                for name, text in [] if isinstance(result, Crash) else result:
                    journal.add(name, text)
            captions |= {record.id: journal[record.id] for record in wanted if record.id in journal}
        return [
            replace(
                record,
                caption=captions.get(record.id, record.caption),
                dropped=record.dropped
                or (("without a caption",) if settings.required and not captions.get(record.id) else ()),
            )
            for record in records
        ]

    def write_clips(self, records: Sequence[Record], paths: dict[str, Path]) -> list[Record]:
        """The files of all kept clips; a record whose clip cannot be written says why."""
        wanted = [record for record in records if not record.dropped]
        missing = groups_of([r for r in wanted if not (self.folder / path_of(r)).is_file()], paths)
        failed: dict[str, str] = {}
        lengths = [len(group.records) for group in missing]
        step = ExportStep(self.folder, self.settings.export.crf)
        for index, result in self._pass("write", [step], missing, len(wanted), lengths):
            crashed = [(record.id, CRASHED) for record in missing[index].records]
            failed |= {name: why for name, why in (crashed if isinstance(result, Crash) else result) if why}
        return [replace(r, dropped=(failed[r.id],)) if r.id in failed else r for r in records]

    def _pass(
        self,
        title: str,
        steps: Sequence[Step],
        items: Sequence[Any],
        total: int,
        lengths: Sequence[int] | None = None,
        runner: Runner | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """The results of a pass as they come; what was done before counts as done."""
        lengths = lengths or [1] * len(items)
        done = total - sum(lengths)
        self.progress(title, done, total)
        for index, result in (runner or self.runner).run(steps, items):
            yield index, result
            done += lengths[index]
            self.progress(title, done, total)

    def _shards(self, clips: Sequence[Clip]) -> list[Path]:
        settings = self.settings.export
        if settings.shards == "none":
            return []
        report = self.progress
        return write_shards(
            self.folder, clips, settings.shards, settings.per_shard, lambda done, total: report("shards", done, total)
        )

    def _remove_former(self, clips: Sequence[Clip]) -> None:
        """Clip files of former settings, which no manifest names any more."""
        named = {self.folder / clip.path for clip in clips}
        for path in self.folder.glob("clips/*/*.mp4"):
            if path not in named:
                path.unlink()

    def _journal(self, name: str, made_with: Any) -> Journal:
        described = json.dumps([VERSION, made_with], sort_keys=True)
        return Journal(self.folder / WORK / f"{name}.jsonl", hashlib.sha256(described.encode()).hexdigest()[:16])


def describe(settings: PrepareSettings, credits: set[str]) -> dict[str, Any]:
    """What ``world.json`` says."""
    return {"world": "prepared", "version": VERSION, "settings": settings.to_json(), "credits": sorted(credits)}


def _check_folder(folder: Path, settings: PrepareSettings) -> None:
    """Refuse a folder of another kind, or one whose clips were cut or coded otherwise."""
    if not (folder / WORLD).exists():
        return
    world = read_world(folder)
    if (world.get("world"), world.get("version")) != ("prepared", VERSION):
        raise DataError(
            f"{folder} holds the world {world.get('world')} version {world.get('version')}, not a prepared set of "
            f"version {VERSION}. Choose another --out."
        )
    there, asked = world["settings"], settings.to_json()
    fixed = [("cut", name) for name in asked["cut"]] + [("export", "crf")]
    differing = [
        f"{name} {there[part].get(name)}, not {asked[part][name]}"
        for part, name in fixed
        if there[part].get(name) != asked[part][name]
    ]
    if differing:
        raise DataError(f"{folder} was made with {'; '.join(differing)}. Use the same, or choose another --out.")


def _file_key(path: Path, name: str) -> str:
    """A file as it is now: one that changes is looked at again."""
    status = path.stat()
    return f"{name}|{status.st_size}|{status.st_mtime_ns}"


def _source(path: Path, name: str, facts: dict[str, Any], credit: str | None) -> Source:
    return Source(
        path=path,
        name=name,
        sha256=facts["sha256"],
        frames=facts["frames"],
        fps=facts["fps"],
        credit=credit_of(facts["sha256"]) or credit,
    )


def _known(measures: dict[str, Any], names: set[str], digest: str | None) -> dict[str, Any]:
    """What is measured already and still wanted; a score of another ranker is not."""
    is_old = measures.get("aesthetic", {}).get("ranker") != digest
    return {n: m for n, m in measures.items() if n in {*names, "decoding"} and not (n == "aesthetic" and is_old)}


def _in_bucket(record: Record, settings: PrepareSettings) -> Record:
    bucket = choose_bucket(record, settings.bucket)
    return replace(record, dropped=(bucket,)) if isinstance(bucket, str) else replace(record, bucket=str(bucket))


def _too_short(facts: dict[str, Any], settings: PrepareSettings) -> str:
    return f"No shot has the {settings.cut.min_frames} frames of a clip; its longest has {facts['longest_shot']}."


def _nothing_is_left(folder: Path, records: Sequence[Record], rejected: Sequence[Rejection]) -> str:
    reasons = "".join(f" {one.source}: {one.reason}" for one in rejected[:5])
    return (
        f"No clip is left of {len(records)}, and {len(rejected)} files could not be used; {folder / RECORDS} says "
        f"why of each clip.{reasons}"
    )
