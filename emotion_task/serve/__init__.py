"""`emotion serve`: a model that explains recordings over HTTP, on Ray Serve and vLLM.

    client -> front (one actor: access, limits, metrics) -> explainers (replicas: measuring, vLLM)

`app` starts and ends both.
"""
