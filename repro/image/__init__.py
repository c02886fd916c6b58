"""The container image of a clone: what it is made of (`contents`), how it is made (`build`), how it moves (`transfer`).

`repro image COMMAND` calls these. The environment of requirements/lock.txt is in the image, the project itself is not.
"""
