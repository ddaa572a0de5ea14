"""From a folder of videos to a training set (paper section 3): measured, judged, cropped, captioned, bucketed, written.

settings.py   one configuration: how videos are cut, what is kept
records.py    the manifest of all this: one record for each clip, its measures, why it is left out
stage.py      what a stage is: a clip's frames to numbers, and numbers to an objection
crop.py  motion.py  sharpness.py  overlay.py  fingerprint.py     the stages
ingest.py     files to records: probing, finding shots, cutting them into clips
looking.py    decoding the clips of a source, each frame once for all stages
dedupe.py     near-duplicates over the whole set
buckets.py    which size and length a clip is trained at
captions.py   captioners and what is done to their text;  captioners.py  the real ones
export.py     clip files;  shards.py  WebDataset and Parquet beside them
workers.py    the same work in processes;  ray_workers.py  on Ray Data
run.py        all of it, in order
report.py     the table and the contact sheets
"""
