"""Where the bytes of files lie when not in the database: one seam (`seam`), a folder (`folder`), a bucket (`s3`)."""
