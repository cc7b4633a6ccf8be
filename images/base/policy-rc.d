#!/bin/sh
# Installing a package starts nothing: in a container the entrypoint does.
exit 101
