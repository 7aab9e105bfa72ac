"""A person's video → an avatar package and an honest report: film, track, align, loop, fit, package, report.

`liveface create`, `track`, `eval` and `dub`. Needs torch and mediapipe (`pip install "liveface[create]"`).
"""
