package ace

import (
	"encoding/json"
	"fmt"

	channel "ace_plugin/gen/exports/export_openedx_ace_channel"
	authorized "ace_plugin/gen/imports/openedx_ace_authorized_http"
	http "ace_plugin/gen/imports/openedx_ace_http"
	"go.bytecodealliance.org/pkg/wit/types"
)

// Header is the name and the value of a header.
type Header = wit_types.Tuple2[string, string]

// FetchOk makes one request, whose answer must be a success (2xx). The credential that the host adds has the plugin's own name; ""
// is none. The error is for Deliver: 408, 425, 429, 5xx, time-outs, broken connections and what is wrong with a credential are
// recoverable, the rest is fatal. It needs the grant for the URL.
func FetchOk(request http.Request, credential string) (http.Response, error) {
	response, err := fetch(request, credential)
	if err != nil {
		return http.Response{}, err
	}
	switch status := response.Status; {
	case status >= 200 && status < 300:
		return response, nil
	case status == 408 || status == 425 || status == 429 || status >= 500:
		return response, channel.Recoverable(fmt.Sprintf("%s answered %d", request.Url, status))
	default:
		return response, channel.Fatal(fmt.Sprintf("%s answered %d", request.Url, status))
	}
}

// PostJson is FetchOk of a POST with a JSON body.
func PostJson(url string, body any, headers []Header, credential string) (http.Response, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return http.Response{}, channel.Fatal(err.Error())
	}
	headers = append([]Header{{F0: "content-type", F1: "application/json"}}, headers...)
	request := http.Request{Method: "POST", Url: url, Headers: headers, Body: wit_types.Some(text)}
	return FetchOk(request, credential)
}

func fetch(request http.Request, credential string) (http.Response, error) {
	if credential == "" {
		answer := http.Fetch(request)
		if answer.IsErr() {
			return http.Response{}, failed(answer.Err())
		}
		return answer.Ok(), nil
	}
	answer := authorized.Fetch(request, credential)
	if answer.IsOk() {
		return answer.Ok(), nil
	}
	switch why := answer.Err(); why.Tag() {
	case authorized.AuthorizedError_Rejected:
		return http.Response{}, channel.Recoverable("the credential is rejected: " + why.Rejected())
	case authorized.AuthorizedError_Unavailable:
		return http.Response{}, unavailable(why.Unavailable())
	default:
		return http.Response{}, failed(why.Http())
	}
}

func unavailable(why authorized.RecoverableError) error {
	message := "no token: " + why.Message
	if why.NextAttemptTime.IsSome() {
		return channel.RecoverableAt(message, why.NextAttemptTime.Some())
	}
	return channel.Recoverable(message)
}

func failed(why http.HttpError) error {
	switch why.Tag() {
	case http.HttpError_TimedOut:
		return channel.Recoverable("http: no answer in time")
	case http.HttpError_Connection:
		return channel.Recoverable("http: connection failed: " + why.Connection())
	case http.HttpError_Denied:
		return channel.Fatal("http: " + why.Denied())
	case http.HttpError_Invalid:
		return channel.Fatal("http: " + why.Invalid())
	default:
		return channel.Fatal(fmt.Sprintf("http: the answer is longer than %d bytes", why.TooLarge()))
	}
}
