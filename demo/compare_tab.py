class CompareTab:
    def __init__(self, *a):
        pass
