class RankTab:
    def __init__(self, *a):
        pass
