"""A URL whose package is not installed: the sentence names the extra."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("url", "package", "extra"), [("s3://b/x", "s3fs", "s3"), ("gs://b/x", "gcsfs", "gs")])
def test_the_sentence_names_the_extra(url, package, extra):
    script = f"""
import sys
sys.modules["{package}"] = None  # as where it is not installed
from caploom.storage.paths import file_system
file_system("{url}")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    expected = f"{url}: {url[:2]}:// needs a package that is not installed; pip install 'caploom[{extra}]'."
    assert done.stderr.strip().splitlines()[-1] == f"caploom.errors.SourceError: {expected}"
