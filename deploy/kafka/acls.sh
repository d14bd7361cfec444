#!/bin/sh
# The rights in Kafka of workers, operators, and the services that publish and subscribe. `acls.sh --help` says how.
set -eu

usage() {
    cat <<'END'
Usage: acls.sh [--execute]

Print the kafka-acls.sh commands that grant what each principal needs, and nothing else.
With --execute: run them. What is granted already stays as it is, so that it may be run again.
Nothing is taken away: after a change of names, remove the old ones by kafka-acls.sh --remove.

  --execute   run the commands
  --help      show this

Environment, with the defaults. Those of the worker have the names of its settings:
  ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS   127.0.0.1:9092
  ORDER_WORKER_GROUP_ID                  order-worker
  ORDER_WORKER_ORDER_PLACED_TOPIC        order-placed
  ORDER_WORKER_ORDER_CONFIRMED_TOPIC     order-confirmed
  ORDER_WORKER_ORDER_REJECTED_TOPIC      order-rejected
  ORDER_WORKER_DEAD_LETTER_TOPIC         order-placed-dlt
Who gets the rights; one that is set to nothing gets none:
  WORKER        User:order-worker       `order-worker run`
  READER        User:order-reader       commands that change nothing: lag, explain, reconcile, dead-letters list
  OPERATOR      User:order-operator     what a reader may, and those that publish: redrive, replay, republish, ...
  SETUP         User:order-setup        `order-worker topics create`
  PRODUCER      User:order-producer     services that place orders; `order-worker place`
  SUBSCRIBER    User:order-subscriber   a service that reads outcomes, in the consumer group
  SUBSCRIBER_GROUP   order-subscriber
How it is done:
  KAFKA_ACLS        kafka-acls.sh       Kafka's own tool
  COMMAND_CONFIG                        a properties file that it logs in with, as somebody who may ALTER the cluster

Examples:
  acls.sh
  COMMAND_CONFIG=admin.properties WORKER='User:CN=worker,O=Shop' acls.sh --execute
END
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

execute=
for argument in "$@"; do
    case $argument in
    --execute) execute=yes ;;
    -h | --help) usage; exit 0 ;;
    *) fail "there is no $argument: look at acls.sh --help" ;;
    esac
done

servers=${ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS:-127.0.0.1:9092}
group=${ORDER_WORKER_GROUP_ID:-order-worker}
placed=${ORDER_WORKER_ORDER_PLACED_TOPIC:-order-placed}
confirmed=${ORDER_WORKER_ORDER_CONFIRMED_TOPIC:-order-confirmed}
rejected=${ORDER_WORKER_ORDER_REJECTED_TOPIC:-order-rejected}
letters=${ORDER_WORKER_DEAD_LETTER_TOPIC:-order-placed-dlt}
worker=${WORKER-User:order-worker}
reader=${READER-User:order-reader}
operator=${OPERATOR-User:order-operator}
setup=${SETUP-User:order-setup}
producer=${PRODUCER-User:order-producer}
subscriber=${SUBSCRIBER-User:order-subscriber}
subscriber_group=${SUBSCRIBER_GROUP:-order-subscriber}
tool=${KAFKA_ACLS:-kafka-acls.sh}

for named in "WORKER=$worker" "READER=$reader" "OPERATOR=$operator" "SETUP=$setup" "PRODUCER=$producer" \
    "SUBSCRIBER=$subscriber"; do
    case $named in
    *=User:?* | *=) ;;
    *) fail "$named is no principal: write User: and the name that the brokers know" ;;
    esac
done
if [ -n "$execute" ] && ! command -v "$tool" >/dev/null; then
    fail "there is no $tool: set KAFKA_ACLS to Kafka's tool, bin/kafka-acls.sh"
fi

quoted() {
    case $1 in
    '' | *[!A-Za-z0-9_./:=,@%+-]*) printf " '%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")" ;;
    *) printf ' %s' "$1" ;;
    esac
}

# grant WHY "PRINCIPAL_1|PRINCIPAL_2" ARGUMENTS OF kafka-acls.sh: for those of them that are set.
grant() {
    why=$1 whom=$2
    shift 2
    for principal in "$worker" "$reader" "$operator" "$setup" "$producer" "$subscriber"; do
        case "|$whom|" in
        *"|$principal|"*) [ -z "$principal" ] || set -- --allow-principal "$principal" "$@" ;;
        esac
    done
    case $1 in --allow-principal) ;; *) return 0 ;; esac
    set -- "$tool" --bootstrap-server "$servers" ${COMMAND_CONFIG:+--command-config "$COMMAND_CONFIG"} --add "$@"
    printf '# %s\n' "$why"
    line=
    for word in "$@"; do line=$line$(quoted "$word"); done
    printf '%s\n' "${line# }"
    [ -z "$execute" ] || "$@" || {
        printf 'error: the last command failed, and those behind it were not run: run it again once that is fixed\n' >&2
        exit 1
    }
}

grant 'Read what was placed and published; know how large a record each topic takes.' "$worker|$reader|$operator" \
    --operation Read --operation DescribeConfigs \
    --topic "$placed" --topic "$confirmed" --topic "$rejected" --topic "$letters"
grant 'Publish outcomes and dead letters.' "$worker" \
    --operation Write --topic "$confirmed" --topic "$rejected" --topic "$letters"
grant 'Place orders again (redrive, orders reopen), publish outcomes again (republish, reconcile --repair).' "$operator" \
    --operation Write --topic "$placed" --topic "$confirmed" --topic "$rejected"
grant 'Be in the consumer group, and move its offsets while nobody is (replay, skip).' "$worker|$operator" \
    --operation Read --group "$group"
grant 'See how far the group has come.' "$reader" \
    --operation Describe --group "$group"
grant 'The groups of the commands, whose names begin with that of the workers.' "$operator" \
    --operation Read --group "$group." --resource-pattern-type prefixed
grant 'See how far a republish has come.' "$reader" \
    --operation Describe --group "$group." --resource-pattern-type prefixed
grant 'Publish in transactions, and end those that a worker left open. Their ids begin with the name of the group.' \
    "$worker|$operator" \
    --operation Write --transactional-id "$group." --resource-pattern-type prefixed
grant 'Create the topics, and show those that exist.' "$setup" \
    --operation Create --operation Describe --operation DescribeConfigs \
    --topic "$placed" --topic "$confirmed" --topic "$rejected" --topic "$letters"
grant 'Know how many copies the brokers keep of a topic by default.' "$setup" \
    --operation DescribeConfigs --cluster
grant 'Place orders.' "$producer" \
    --operation Write --topic "$placed"
grant 'Read the outcomes.' "$subscriber" \
    --operation Read --topic "$confirmed" --topic "$rejected" --group "$subscriber_group"
[ -n "$execute" ] || printf '# Nothing was granted. To run these commands: acls.sh --execute\n'
