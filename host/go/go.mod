module example.com/boundary-usage/host/go

go 1.19
