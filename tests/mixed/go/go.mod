module example.com/boundary-usage/tests/mixed/go

go 1.19

require example.com/boundary-usage/host/go v0.0.0

replace example.com/boundary-usage/host/go => ../../../host/go
