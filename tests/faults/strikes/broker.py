"""The Kafka broker: dead, stopped in order, frozen, or refusing what is sent."""

from tests.faults.arena import LARGEST_BYTES, Arena
from tests.faults.strikes import INJECTIONS
from tests.support.topic_changes import set_largest_record


def crash(arena: Arena) -> None:
    """`kill -9` of the broker, which is started again."""
    for _ in range(2):
        arena.some_progress()
        arena.site.kafka.crash()
        arena.site.kafka.start()
        arena.injected += 1


def restart(arena: Arena) -> None:
    """An orderly stop (SIGTERM) of the broker under load, and a start."""
    for _ in range(2):
        arena.some_progress()
        arena.site.kafka.restart()
        arena.injected += 1


def freeze(arena: Arena) -> None:
    """The broker stands still (SIGSTOP) past the deadline of every commit, until a worker gives up."""
    try:
        with arena.given_up():
            arena.site.kafka.freeze()
    finally:
        arena.site.kafka.thaw()
    arena.injected += 1


def forgotten_offsets(arena: Arena) -> None:
    """The broker forgets the group's offsets, or returns old ones, and every worker was just killed."""
    for number in range(INJECTIONS):
        arena.some_progress()
        for worker in arena.crew:
            worker.kill()
        if number % 2:
            arena.scene.remember_wrongly()
        else:
            arena.scene.forget_offsets()
        arena.injected += 1


def refused_sends_in_parts(arena: Arena) -> None:
    """The same while workers decide each batch in many small parts."""
    arena.dismiss()
    arena.settings["batch_max_bytes"] = "4096"
    refused_sends(arena)


def refused_sends(arena: Arena) -> None:
    """The topic of the dead letters takes nothing for a while."""
    topic = arena.scene.topics.dead_letter
    for _ in range(2):
        arena.some_progress()
        try:
            with arena.retrying():
                set_largest_record(arena.scene.kafka, topic, 100)
                arena.feed(1 / 4)
        finally:
            set_largest_record(arena.scene.kafka, topic, LARGEST_BYTES["dead_letter"])
        arena.injected += 1
