// A subscriber in which each outcome takes effect once, whatever is killed, republished or read again:
// "subscriber 127.0.0.1:9092 order-confirmed order-rejected", or "python -m contracts.kit -- subscriber".
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type outcome struct { // fields that are not named here are passed over
	OrderID   string            `json:"order_id"`
	UserID    int64             `json:"user_id"`
	Total     string            `json:"total_amount"` // money is text, and never a float
	Items     []json.RawMessage `json:"items"`
	Retryable bool
	Reasons   []struct{ Code string } // an open list: also a code of tomorrow
}
type message struct {
	Headers [][2]string
	Value   string
}

var path = filepath.Join(os.Getenv("CONTRACT_KIT_STATE"), "done.json")
var done = map[string]map[string]any{} // what was done, by identity: one file, replaced as one step
func take(m message) {
	headers, o, codes := map[string]string{}, outcome{}, []string{}
	for _, header := range m.Headers {
		headers[header[0]] = header[1]
	}
	identity, kind := headers["ce_source"]+" "+headers["ce_id"], headers["ce_type"]
	if done[identity] != nil || kind != "order-confirmed" && kind != "order-rejected" {
		return // known, or of a kind that we do not know
	}
	must(json.Unmarshal([]byte(m.Value), &o))
	for _, reason := range o.Reasons {
		codes = append(codes, reason.Code)
	}
	done[identity] = map[string]any{"order_id": o.OrderID, "user_id": o.UserID, "outcome": kind[len("order-"):],
		"total_amount": o.Total, "items": len(o.Items), "codes": codes, "retryable": o.Retryable}
	text, _ := json.Marshal(done) // where there are many: a row in a database
	must(os.WriteFile(path+".new", text, 0o600))
	must(os.Rename(path+".new", path))
	must(json.NewEncoder(os.Stdout).Encode(done[identity])) // never twice: it is stored by now
}
func main() {
	if text, err := os.ReadFile(path); err == nil {
		must(json.Unmarshal(text, &done))
	}
	if stdin := json.NewDecoder(os.Stdin); len(os.Args) == 1 {
		for m := (message{}); stdin.Decode(&m) == nil; m = (message{}) {
			take(m)
		}
		return
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(os.Args[1]), kgo.ConsumerGroup("subscriber-in-go"), kgo.DisableAutoCommit(),
		kgo.SessionTimeout(6*time.Second), // how soon one that was killed gives its partitions to the others
		kgo.ConsumeTopics(os.Args[2:]...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for must(err); ; must(client.CommitUncommittedOffsets(context.Background())) { // after the effects
		fetches := client.PollFetches(context.Background())
		must(fetches.Err())
		for r := range fetches.RecordsAll() {
			m := message{Value: string(r.Value)}
			for _, h := range r.Headers {
				m.Headers = append(m.Headers, [2]string{h.Key, string(h.Value)})
			}
			take(m)
		}
	}
}
func must(err error) {
	if err != nil {
		log.Fatal("error: ", err)
	}
}
