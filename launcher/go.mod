module polypod.dev/launcher

go 1.24
