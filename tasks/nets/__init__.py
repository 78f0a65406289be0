"""Architectures only: what is learned, without data, losses or files other than pretrained weights.

`backbones`   any torchvision network by name, without its classifier, with BatchNorm that small cohorts survive
`encoder`     VisitEncoder: slices of one hip-visit -> named clinical heads; SliceClassifier: one slice -> lesion or not
`segmenters`  HipSegmenter (LR-ASPP: head and lesion) and VesselNet (full-resolution U-Net: vessels)
`folding`     a network for reading alone, in fewer passes over memory
`forecaster`  the recurrent net over visits (self-contained: it travels in the registered package)

Images are (batch, channels, rows, columns) in hip space, normalized intensity; channels are tasks.domain.hip.ROLES in
order, zeros where a role is missing. Needs torch and torchvision (2.11 + 0.26 or later).
"""
