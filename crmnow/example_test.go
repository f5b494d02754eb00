package crmnow_test

import (
	"context"
	"fmt"

	"github.com/bearergate/bearergate/crmnow"
)

func Example() {
	// The endpoint, on a free port of loopback.
	endpoint, err := crmnow.StartLocal(crmnow.EmulatorOptions{
		Clients: map[string]crmnow.Secret{"partner": crmnow.NewSecret("its secret")},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer endpoint.Close()

	// A token as a partner fetches it.
	client, err := crmnow.NewClient(crmnow.ClientOptions{
		URL: endpoint.URL(), ID: "partner", Secret: crmnow.NewSecret("its secret"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	grant, err := client.Token(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("token", grant.AccessToken, "for", grant.ExpiresIn)

	// How often the endpoint was asked about it: not once, yet.
	fmt.Println("verified", endpoint.VerificationsOf(grant.AccessToken), "times")
	// Output:
	// token (hidden) for 5m0s
	// verified 0 times
}
