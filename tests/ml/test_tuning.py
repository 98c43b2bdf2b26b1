"""Tuning: what a search sees, that it goes on where it was, and that it is the same however it is run."""

import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import optuna
import pytest
from django.conf import settings
from django.db import connection

from ml.splits import WINDOWS, rolling_windows
from ml.tuning import NOT_PRUNED, START, Storage, StorageFailed, WorkerFailed, search, searches, tune
from tests.ml.synthetic import training_data

COMPLETE, PRUNED, FAIL = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.FAIL


@pytest.fixture
def storage(django_db_setup):
    """The tests' own database, without a trace of tuning afterwards."""
    kept = Storage.of(connection.settings_dict)
    yield kept
    studies = opened(kept)
    for name in optuna.get_all_study_names(studies):
        optuna.delete_study(study_name=name, storage=studies)
    studies.engine.dispose()


def opened(storage):
    return optuna.storages.RDBStorage(storage.url, engine_kwargs={"connect_args": dict(storage.options)})


def tried(storage, job):
    """What a study tried, and what came of it: all that has been finished, in order."""
    studies = opened(storage)
    trials = optuna.load_study(study_name=job.study, storage=studies).get_trials(states=(COMPLETE, PRUNED))
    studies.engine.dispose()
    return [(trial.state, trial.params, trial.values, trial.intermediate_values) for trial in trials]


def small(name, trials=4, data=None):
    return searches(data or training_data(1, sessions=40, per_session=12, edge=2.0), name, 7, trials)


def last(standings):
    return {standing.window: standing for standing in standings}


def altered_from(data, moment, until=None):
    """The same trades with other features and outcomes on the sessions from one on, or up to another."""
    other = data.session >= moment
    if until is not None:
        other &= data.session <= until
    columns = {
        name: np.where(other, values[::-1], values)
        if values.dtype == object
        else np.where(other, values * 5 + 3, values)
        for name, values in data.columns.items()
    }
    return replace(data, columns=columns, won=np.where(other, ~data.won, data.won), r=np.where(other, -data.r, data.r))


@pytest.mark.parametrize("number", range(1, WINDOWS + 1))
def test_a_windows_trials_are_the_same_whatever_its_test_part_and_all_that_follows_holds(storage, number):
    data = training_data(1, sessions=40, per_session=12, edge=2.0)
    window = rolling_windows(data.session, data.end)[number - 1]
    first, later, inside = (
        small(name, 2, given)[number - 1]
        for name, given in (
            ("as it is", data),
            ("altered", altered_from(data, window.test.first)),
            ("altered inside", altered_from(data, window.train.first, window.train.last)),
        )
    )
    for job in (first, later, inside):
        assert list(search(storage, job))[-1].trials == 2
    assert tried(storage, first) == tried(storage, later)
    assert tried(storage, first) != tried(storage, inside)


def test_the_search_starts_from_the_users_parameters_and_ends_no_worse(storage):
    job = small("start", 8)[0]
    standings = list(search(storage, job))
    start = tried(storage, job)[0]
    assert start[0] == COMPLETE
    assert start[1] == {name: START[name] for name in start[1]}
    assert standings[0].parameters == START
    assert standings[0].log_loss == standings[0].start_log_loss == start[2][0]
    assert [standing.trials for standing in standings] == list(range(1, 9))
    assert standings[-1].log_loss < standings[-1].start_log_loss
    losses = [standing.log_loss for standing in standings]
    assert losses == sorted(losses, reverse=True)


def test_what_is_worse_than_the_median_of_earlier_trials_is_given_up_and_counts_as_a_trial(storage):
    job = small("pruned", 16, training_data(1, sessions=80, per_session=12, edge=2.0))[0]
    standing = list(search(storage, job))[-1]
    states = [state for state, *_ in tried(storage, job)]
    assert states[:NOT_PRUNED] == [COMPLETE] * NOT_PRUNED
    assert 0 < states.count(PRUNED) == standing.pruned
    assert standing.trials == len(states) == 16


def test_the_same_seed_makes_the_same_trials_and_another_seed_others(storage):
    first, again = small("first")[0], small("again")[0]
    other = replace(small("other")[0], seed=8)
    for job in (first, again, other):
        list(search(storage, job))
    assert tried(storage, first) == tried(storage, again)
    assert tried(storage, first)[1:] != tried(storage, other)[1:]


def test_a_search_that_is_done_does_nothing_more_and_goes_on_when_more_is_asked(storage):
    job, at_once = small("by and by", 3)[0], small("at once", 6)[0]
    done = list(search(storage, job))[-1]
    assert list(search(storage, job)) == [done]
    assert list(search(storage, replace(job, trials=6)))[-1].trials == 6
    list(search(storage, at_once))
    assert tried(storage, job) == tried(storage, at_once)


@pytest.mark.slow
def test_windows_side_by_side_make_the_trials_that_they_make_in_turn(storage):
    together, in_turn = small("together", 2)[:3], small("in turn", 2)[:3]
    assert last(tune(storage, together, 2)) == last(tune(storage, in_turn, 1))
    for one, other in zip(together, in_turn, strict=True):
        assert tried(storage, one) == tried(storage, other)


@pytest.mark.slow
def test_many_workers_may_begin_in_a_database_that_nobody_tuned_in(tmp_path):
    fresh = Storage(f"sqlite:///{tmp_path / 'db.sqlite3'}", {"timeout": 20})
    assert {standing.trials for standing in tune(fresh, small("fresh", 1)[:2], 5)} == {1}


SEARCHER = """
import pickle, sys
from ml.tuning import tune
if __name__ == "__main__":
    for standing in tune(*pickle.load(open(sys.argv[1], "rb")), workers=2):
        print(standing.window, flush=True)
"""


@pytest.mark.slow
def test_a_killed_search_ends_with_its_workers_and_goes_on_as_if_nothing_had_been(storage, tmp_path):
    """The workers hold the pipe that is read here: it ends when the last of them does."""
    killed, whole = small("killed", 5)[:2], small("whole", 5)[:2]
    (tmp_path / "searcher.py").write_text(SEARCHER)
    (tmp_path / "searches").write_bytes(pickle.dumps((storage, killed)))
    running = subprocess.Popen(
        [sys.executable, str(tmp_path / "searcher.py"), str(tmp_path / "searches")],
        env={"PYTHONPATH": str(settings.BASE_DIR)},
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(3):
        assert running.stdout.readline()
    running.kill()
    running.communicate(timeout=20)
    made = [len(tried(storage, job)) for job in killed]
    assert 3 <= sum(made) < 10
    standing = last(tune(storage, killed, 1))
    list(tune(storage, whole, 1))
    for one, other in zip(killed, whole, strict=True):
        assert standing[one.window].trials == 5
        assert tried(storage, one) == tried(storage, other)


def test_a_trial_left_running_is_failed_and_made_again(storage):
    job, whole = small("left", 3)[0], small("whole", 3)[0]
    list(search(storage, replace(job, trials=1)))
    studies = opened(storage)
    study = optuna.load_study(study_name=job.study, storage=studies)
    left = study.ask()
    left.suggest_int("max_depth", 2, 10)
    assert list(search(storage, job))[-1].trials == 3
    assert study.trials[left.number].state == FAIL
    studies.engine.dispose()
    list(search(storage, whole))
    assert tried(storage, job) == tried(storage, whole)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_database_that_fails_is_told_in_one_line(tmp_path, workers):
    nowhere = Storage(f"sqlite:///{tmp_path / 'nowhere' / 'db.sqlite3'}", {})
    with pytest.raises(StorageFailed, match="unable to open database file") as failed:
        list(tune(nowhere, small("nowhere")[:2], workers))
    assert "\n" not in str(failed.value)


def test_a_worker_that_ends_early_is_told(storage, capfd):
    broken = replace(small("broken")[0], columns=("too", "few"))
    with pytest.raises(WorkerFailed, match="ended with status 1"):
        list(tune(storage, [broken], 2))
    assert "ValueError" in capfd.readouterr().err


def test_a_window_whose_training_part_has_one_class_has_no_search():
    data = training_data(1, sessions=22, per_session=5)
    window = rolling_windows(data.session, data.end)[0]
    data = replace(data, won=np.where(data.session <= window.train.last, True, data.won))
    assert [job.window for job in small("one class", 3, data)] == [3, 4, 5]


def test_no_table_of_optunas_has_the_name_of_one_of_ours(storage):
    studies = opened(storage)
    names = set(optuna.storages._rdb.models.BaseModel.metadata.tables) | {"alembic_version"}
    assert len(names) > 10
    assert not names & set(connection.introspection.django_table_names())
    studies.engine.dispose()


def test_a_password_with_signs_and_a_socket_or_certificate_reach_the_database():
    from sqlalchemy import make_url

    database = {"ENGINE": "django.db.backends.postgresql", "NAME": "desk", "USER": "ada", "PASSWORD": "p@ss/w:rd%"}
    options = {"pool": {"min_size": 1}, "sslmode": "require"}
    storage = Storage.of({**database, "HOST": "db", "PORT": 5433, "OPTIONS": options})
    url = make_url(storage.url)
    assert (url.username, url.password, url.host, url.port, url.database) == ("ada", "p@ss/w:rd%", "db", 5433, "desk")
    assert url.drivername == "postgresql+psycopg"
    assert storage.options == {"sslmode": "require"}
