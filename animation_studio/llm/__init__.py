"""From a sentence to prompts, and a judgement of the picture, by local language models.

In: a sentence, the registry, and a service of `services.yaml`. Out: a `Plan` that can only name
what the configuration has, the scene's prompt assembled from it by code, and a `Judgement` of a
picture with one yes/no answer for each slot of the plan. Modules:
`chat` (one request to an OpenAI-compatible server, with `sse`, `hearing`, `structured` and others
beside it), `vocabulary`, `plan` and `plan_text` (what a plan may say, also by hand), `writer` and
`assembly` (sentence to plan, plan to prompts), `questions`, `judge` and `judgement` (the picture
against the plan), `refine` (the next plan), `checked` (an answer that has to be JSON), `quoting`
and `literal` (texts of strangers), `answers` (what was asked before), `report`.

Everything that waits is asynchronous and may be cancelled at every await.
"""
