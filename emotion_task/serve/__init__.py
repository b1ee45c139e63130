"""A service explains recordings over HTTP (`emotion serve`), on Ray Serve and vLLM.

    client -> front (one actor: access, limits, metrics) -> explainers (replicas: measuring, vLLM)

`app` starts and ends both. Needs the extra `serve`.
"""
