module polypod.dev/sdk/go

go 1.24

require (
	github.com/vmihailenco/msgpack/v5 v5.4.1
	go.yaml.in/yaml/v3 v3.0.6
)

require github.com/vmihailenco/tagparser/v2 v2.0.0 // indirect
