"""The documents that repeat a class of the method, whose import loads torch, have its keys."""

from dataclasses import fields

from silent_gradients.evaluation.importance_weighted import ImportanceWeighted
from silent_gradients.evaluation.metrics import Metrics
from silent_study.store import documents


def test_the_metrics_of_a_document_are_those_of_an_evaluation():
    evaluated = {field.name for field in fields(Metrics)} | set(ImportanceWeighted(1, 1.0, None, 1.0).to_json())
    assert set(documents.Metrics.__annotations__) == evaluated
