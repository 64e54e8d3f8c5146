"""Merging on a Ray cluster of two nodes, simulated on this machine: the same files as one process writes."""

import os
import random
import signal
import threading
import time

import numpy as np
import psutil
import pytest
from small_factory import ColourBackend, settings_of

from caploom.captioning.caption_shard import caption_shard
from caploom.config import parse_config
from caploom.errors import ClusterError, StoreError, TrainingError
from caploom.factory import Factory
from caploom.readers.ingest import ingest_shard, ingested_shards
from caploom.readers.shards import cut_new_shards
from caploom.shearing.shear import shear_recipe
from caploom.training.clip_model import create_clip_model, save_checkpoint
from caploom.training_set import buckets, row_files
from caploom.training_set.merge import merge_training_set

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")
