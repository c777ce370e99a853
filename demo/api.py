def add_endpoints(engine):
    pass
