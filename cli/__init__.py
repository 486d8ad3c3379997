"""The command line. What waits here says so in its own words: libraries draw no bars, here and in what is started."""

import os

for _name in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS"):  # read when those libraries are imported
    os.environ.setdefault(_name, "1")
