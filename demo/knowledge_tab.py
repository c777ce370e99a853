class KnowledgeTab:
    def __init__(self, *a):
        pass
