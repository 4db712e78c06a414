"""Data sets straight from model files, without a server: ``python -m service make-dataset``.

plans      the plan, a YAML file
shards     which images are in which file: numbers in, indices out
making     one file of images, a pure function of the recipe and its number
targets    where files go: a folder, or whatever has a URL
processes  files made by processes of this machine
cluster    files made by a Ray cluster; the only one that imports Ray
dataset    the set as a whole: what is there, what is missing, and the manifest
"""
