module hello

go 1.24

require polypod.dev/sdk/go v0.0.0

require (
	github.com/vmihailenco/msgpack/v5 v5.4.1 // indirect
	github.com/vmihailenco/tagparser/v2 v2.0.0 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
)

replace polypod.dev/sdk/go => ../../../sdks/go

tool polypod.dev/sdk/go/cmd/polypod-go-pack
