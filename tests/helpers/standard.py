"""The five standard questions, for tests of what a language model answers."""

from sage_ad.evaluation.questions import standard_questions

STANDARD = [question.text for question in standard_questions()]
