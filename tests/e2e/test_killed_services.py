"""The services of a factory that takes care of itself, killed at random moments while new pictures come in."""

import random
import time
from pathlib import Path

import psutil
import pytest
from fed_factory import draw_pictures, drop
from fed_services import PICTURES, Fed, check_everything_once, wait_for
from services import Services

pytestmark = pytest.mark.slow

KILLS = 10
SEED = 7


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    return draw_pictures(tmp_path_factory.mktemp("drawn"), PICTURES)


def test_ten_kills_lose_and_double_nothing(
    tmp_path_factory: pytest.TempPathFactory, pictures: Path, drawn: list[tuple[Path, str]]
) -> None:
    """SIGKILL to the daemon, the code server and runs' workers, at random moments; each service is started again."""
    fed = Fed(tmp_path_factory.mktemp("killed"), pictures)
    moments = random.Random(SEED)
    victims = ["daemon"] * 3 + ["code"] * 3 + ["run"] * (KILLS - 6)
    moments.shuffle(victims)
    try:
        fed.start()
        drop(drawn[:PICTURES], fed.inbox)
        for victim in victims:
            time.sleep(moments.uniform(1, 12))
            if victim == "run":
                wait_for(lambda: kill_a_worker(fed.services, moments), "a run is at work")
            else:
                fed.services.kill(victim)
                time.sleep(moments.uniform(0, 3))
                fed.services.start(victim)
        wait_for(fed.merged, "all pictures captioned, sheared and merged")
    finally:
        fed.services.stop()
    check_everything_once(fed.factory, drawn[:PICTURES])


def kill_a_worker(services: Services, moments: random.Random) -> bool:
    """SIGKILL to one process of a run, whichever, if there is one."""
    workers = services.run_workers()
    if not workers:
        return False
    try:
        moments.choice(workers).kill()
    except psutil.NoSuchProcess:
        return False
    return True
