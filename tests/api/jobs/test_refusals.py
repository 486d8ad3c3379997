"""Requests for jobs that cannot be: each is refused with the path of its field, and nothing is queued."""

import re

import pytest

from db.contract import methods
from db.tables import Job
from tests.api.examples import CHAT, CHOICE, COMPLETION, choices, http, upload


@pytest.fixture(scope="module")
def training(anna):
    return upload(anna, *choices(4))


@pytest.fixture
def post(anna, url, factory):
    """Posts a body as it is; asserts that no job was made."""

    def send(body, status=400):
        with factory.begin() as session:
            before = session.query(Job).count()
        headers = {"Authorization": f"Bearer {anna.secret}"}
        sent = {"content": body} if isinstance(body, bytes) else {"json": body}
        answer = http.post(f"{url}/fine_tuning/jobs", headers=headers, **sent)
        assert answer.status_code == status, answer.text
        with factory.begin() as session:
            assert session.query(Job).count() == before
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error

    return send


@pytest.mark.parametrize(
    "onward, param",
    [
        ({"ranc": 4}, "onward.ranc"),
        ({"rank": 0}, "onward.rank"),
        ({"rank": 65}, "onward.rank"),
        ({"rank": 2**70}, "onward.rank"),
        ({"rank": "8"}, "onward.rank"),
        ({"rank": 2.5}, "onward.rank"),
        ({"rank": True}, "onward.rank"),
        ({"alpha": -1}, "onward.alpha"),
        ({"alpha": 1e308}, "onward.alpha"),
        ({"alpha": 1e-308}, "onward.alpha"),
        ({"eps": 1e-30}, "onward.eps"),
        ({"learning_rate": 1e-300}, "onward.learning_rate"),
        ({"learning_rate": 10, "weight_decay": 1}, "onward.weight_decay"),
        ({"clip": 1e300}, "onward.clip"),
        ({"eval_every": 2**70}, "onward.eval_every"),
        ({"method": {"name": "lozo", "nu": 2**70}}, "onward.method.nu"),
        ({"targets": []}, "onward.targets"),
        ({"targets": ["q_proj", "c_attn"]}, "onward.targets"),
        ({"targets": "all"}, "onward.targets"),
        ({"targets": ["proj"]}, "onward.targets"),
        ({"layers": "last:0"}, "onward.layers"),
        ({"layers": "last:3"}, "onward.layers"),
        ({"layers": "first:1"}, "onward.layers"),
        ({"layers": 1}, "onward.layers"),
        ({"steps": 0}, "onward.steps"),
        ({"steps": 10**7}, "onward.steps"),
        ({"batch_size": 0}, "onward.batch_size"),
        ({"batch_size": 10**6}, "onward.batch_size"),
        ({"learning_rate": 0}, "onward.learning_rate"),
        ({"learning_rate": 1e9}, "onward.learning_rate"),
        ({"eps": -1e-3}, "onward.eps"),
        ({"eps": 5}, "onward.eps"),
        ({"queries": 1000}, "onward.queries"),
        ({"momentum": 1}, "onward.momentum"),
        ({"clip": 0}, "onward.clip"),
        ({"warmup_steps": 5}, "onward.warmup_steps"),
        ({"eval_every": 0}, "onward.eval_every"),
        ({"eval_rows": 5}, "onward.eval_rows"),
        ({"seed": -1}, "onward.seed"),
        ({"seed": 2**63}, "onward.seed"),
        ({"token_budget": 0}, "onward.token_budget"),
        ({"token_budget": 1}, "onward.token_budget"),
        ({"method": "adamw"}, "onward.method"),
        ({"estimator": "backprop"}, "onward.estimator"),
        ({"objective": "lm"}, "onward.objective"),
        ({"nu": 5}, "onward.nu"),
        ({"method": "lozo", "nu": 0}, "onward.nu"),
        ({"method": "lozo", "window_rank": 3}, "onward.window_rank"),
        ({"method": "lozo", "refresh": "freeze", "rank": 128, "window_rank": 128}, "onward.rank"),
        ({"method": "lozo", "scale": "frobenius"}, "onward.scale"),
        ({"method": {"name": "subzero", "window_rank": 3}}, "onward.method.window_rank"),
        ({"method": {"name": "zo_muon", "estimator": "two_point"}}, "onward.method.estimator"),
        ({"method": {"name": "tezo", "nu": 5}}, "onward.method.nu"),
        ({"method": "lozo", "optimizer": "adam"}, "onward.optimizer"),
        ({"method": "lozo", "refresh": "recompress", "window_rank": 2}, "onward.refresh"),
        ({"method": {"name": "lozo", "nu": 0}}, "onward.method.nu"),
        ({"method": {"name": "lozo", "nu": "5"}}, "onward.method.nu"),
        ({"method": {"name": "lozo", "window_rank": 3}}, "onward.method.window_rank"),
        ({"method": {"name": "mezo", "nu": 5}}, "onward.method.nu"),
        ({"method": {"name": "mezo", "eps": 5}}, "onward.method.eps"),
        ({"method": {"name": "mezo", "eps": 1e-3}, "eps": 1e-2}, "onward.method.eps"),
        ({"method": {"name": "adamw"}}, "onward.method"),
        ({"method": {"eps": 1e-3}}, "onward.method"),
        ({"method": ["mezo"]}, "onward.method"),
        ({"schedule": "exponential"}, "onward.schedule"),
        ({"estimator": "population", "queries": 1}, "onward.queries"),
        ({"method": "fzoo", "queries": 1}, "onward.queries"),
        ({"method": {"name": "es", "queries": 1}}, "onward.method.queries"),
        ({"method": "eggroll", "queries": 1}, "onward.queries"),
        ({"method": "eggroll", "window_rank": 3}, "onward.window_rank"),
        ({"method": "eggroll", "refresh": "recompress"}, "onward.refresh"),
        ({"method": "eggroll", "members": "mine"}, "onward.members"),
        ({"method": {"name": "eggroll", "members": "own", "window_rank": 2}}, "onward.rank"),
        ({"method": {"name": "eggroll", "members": "own", "optimizer": "momentum"}}, "onward.method.optimizer"),
        ({"method": "mezo", "members": "own"}, "onward.members"),
        ({"method": "fzoo", "estimator": "two_point"}, "onward.estimator"),
        ({"method": "eggroll", "optimizer": "adam"}, "onward.optimizer"),
        ({"method": "fzoo", "deviation": "median"}, "onward.deviation"),
        ({"method": "sign", "estimator": "one_sided"}, "onward.estimator"),
        ({"method": "es", "a_factor": 11}, "onward.a_factor"),
        ({"method": "kerzoo", "clip": 1e300}, "onward.clip"),
        ({"method": "cons", "optimizer": "momentum"}, "onward.optimizer"),
        ({"method": "cons", "momentum": 0.9}, "onward.momentum"),
        ({"method": "adamezo", "optimizer": "amsgrad"}, "onward.optimizer"),
        ({"method": "adamezo", "window": 101}, "onward.window"),
        ({"method": "guided", "pool": 1}, "onward.pool"),
        ({"method": {"name": "guided", "pool": 65}}, "onward.method.pool"),
        ({"method": "hizoo", "estimator": "two_point"}, "onward.estimator"),
        ({"method": "hizoo", "smoothing": 0.75}, "onward.smoothing"),
        ({"method": "random_search", "eps": 1e-2}, "onward.eps"),
        ({"method": "random_search", "learning_rate": 2.0}, "onward.learning_rate"),
        ({"method": "random_search", "weight_decay": 0.1}, "onward.weight_decay"),
    ],
)
def test_settings_out_of_range_name_their_path(post, training, onward, param):
    small = {"steps": 4, "batch_size": 2, "rank": 2}
    error = post({"model": "tiny", "training_file": training, "onward": small | onward})
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert param == "onward.targets" or re.split(r"[._]", param)[-1] in error["message"].lower()


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"nonsense": 1}, "nonsense"),
        ({"model": 3}, "model"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"onward": {"seed": -1}}, "onward.seed"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"metadata": {"k": "\x00"}}, "metadata"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations"),
        ({"method": {"type": "dpo"}}, "method.type"),
        ({"method": {"type": "supervised", "dpo": {}}}, "method.dpo"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"learning_rate_multiplier": 1e-300}}, "hyperparameters.learning_rate_multiplier"),
        ({"hyperparameters": {"n_epoch": 1}}, "hyperparameters.n_epoch"),
        ({"hyperparameters": {"batch_size": 3}, "onward": {"batch_size": 2}}, "hyperparameters.batch_size"),
        ({"hyperparameters": {"batch_size": 10**6}}, "hyperparameters.batch_size"),
        ({"seed": 1, "onward": {"seed": 2}}, "seed"),
        ({"onward": {"learning_rate": 1e-3}, "hyperparameters": {"learning_rate_multiplier": 2}},
         "hyperparameters.learning_rate_multiplier"),
        ({"onward": None}, "onward"),
    ],
)  # fmt: skip
def test_fields_that_are_not_right_name_their_path(post, training, fields, param):
    error = post({"model": "tiny", "training_file": training} | fields)
    assert error["param"] == param


def test_an_unknown_setting_is_met_with_the_nearest_known(post, training):
    error = post({"model": "tiny", "training_file": training, "onward": {"ranc": 4}})
    assert "Did you mean 'onward.rank'?" in error["message"]
    assert error["code"] == "unknown_parameter"


def test_a_setting_of_another_method_is_met_with_whose_it_is(post, training):
    error = post({"model": "tiny", "training_file": training, "onward": {"method": "mezo", "nu": 5}})
    owners = " and ".join(f"'{name}'" for name in methods.owners("nu"))
    assert owners.startswith("'lozo'")
    assert error["message"] == f"'onward.nu' is a setting of the method {owners} only."
    assert (
        "Did you mean"
        not in post({"model": "tiny", "training_file": training, "onward": {"method": {"name": "mezo", "nu": 5}}})[
            "message"
        ]
    )


def test_a_missing_target_is_met_with_those_there_are(post, training):
    error = post({"model": "tiny", "training_file": training, "onward": {"targets": ["c_attn"]}})
    for name in ("c_attn", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
        assert name in error["message"]


def test_a_rank_above_a_modules_size_is_refused(post, training):
    error = post({"model": "tiny", "training_file": training, "onward": {"rank": 33, "targets": ["v_proj"]}})
    assert error["param"] == "onward.rank"
    assert "64 by 32" in error["message"]


def test_an_unknown_model_is_not_found(post, training):
    error = post({"model": "gpt-4o-mini", "training_file": training}, 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_a_prompt_longer_than_the_context_names_its_line(post, anna):
    long = COMPLETION | {"prompt": "story " * 300}
    good, bad = upload(anna, COMPLETION, COMPLETION), upload(anna, COMPLETION, long)
    error = post({"model": "tiny", "training_file": bad})
    assert error["param"] == "training_file"
    assert error["message"].startswith("Line 2: ")
    assert "256" in error["message"]
    assert post({"model": "tiny", "training_file": good, "validation_file": bad})["param"] == "validation_file"


def test_files_of_another_objective_are_refused(post, anna, training):
    chat = upload(anna, CHAT)
    assert post({"model": "tiny", "training_file": training, "validation_file": chat})["param"] == "validation_file"
    error = post({"model": "tiny", "training_file": chat, "onward": {"objective": "choice"}})
    assert error["param"] == "onward.objective"


def test_a_missing_or_deleted_file_is_not_found(post, anna, training):
    gone = upload(anna, CHOICE)
    anna.openai.files.delete(gone)
    for file_id in ("file-none", gone):
        assert post({"model": "tiny", "training_file": file_id}, 404)["param"] == "training_file"
        body = {"model": "tiny", "training_file": training, "validation_file": file_id}
        assert post(body, 404)["param"] == "validation_file"
    assert post({"model": "tiny"})["param"] == "training_file"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": NaN}', b"\xff\xfe", b'{"model": "\\ud800"}'])
def test_a_body_that_is_no_json_object_is_refused(post, body):
    assert post(body)["type"] == "invalid_request_error"


def test_too_large_a_body_is_refused(post, settings):
    assert post(b" " * (settings.max_request_bytes + 1), 413)["code"] == "request_too_large"


def test_a_step_of_millions_of_tokens_is_refused_with_its_numbers(post, anna):
    """What others would wait for: 4.6 million tokens, before anything of it is heard."""
    long = upload(anna, *[COMPLETION | {"prompt": "story " * 70 + str(i)} for i in range(200)])
    wide = {"batch_size": 1024, "queries": 64, "rank": 2, "steps": 4}
    error = post({"model": "tiny", "training_file": long, "onward": wide})
    assert (error["param"], error["code"]) == ("onward.batch_size", "above_limit")
    assert re.fullmatch(
        r"One step may take \d{7,8} scored tokens \(128 probes of 1024 rows\): at most 262144 here\."
        r" batch_size \d+ would fit\.",
        error["message"],
    )
