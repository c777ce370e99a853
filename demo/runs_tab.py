class RunsTab:
    def __init__(self, *a):
        pass
