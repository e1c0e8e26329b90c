"""The serving process: gunicorn with one gevent worker, bounded where a slow or idle caller could hold it."""
