"""Readers of the inspection data sets that users bring: one reader a file, one shape (`Sample`) for all of them.

`open_dataset` finds the layout by itself. Readers stream: they list files and read annotations, and open an image only
for its header; what is broken is counted and named in `InspectionDataset.problems`, never skipped in silence.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "common": ["InspectionDataset"],
        "masks": ["load_mask", "place_of_sample", "places_of_mask", "places_of_sample"],
        "sample": ["Problem", "Sample"],
        "registry": ["READERS", "detect_format", "open_dataset"],
    },
)
