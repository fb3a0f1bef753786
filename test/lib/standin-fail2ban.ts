import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { temporaryFolder } from './folder.ts'

export interface StandInJail {
  actionban?: string
  /** Lines as `get JAIL banip --with-time` prints them. */
  bans: string[]
}

/** A `fail2ban-client -i` without a server: it prompts and answers as the real one does. */
export interface StandInFail2Ban {
  client: string
  /** Fail2Ban runs and has these jails, and an empty database. */
  jails(jails: Record<string, StandInJail>): void
  /** What its database holds: jail, address, when the ban began, seconds, and log lines. */
  store(bans: [string, string, number, number, string[]?][]): void
  /** Lines of shell for after an unban, which frees the address in $ip in all jails. */
  onUnban(script: string): void
  breakStore(): void
  down(): void
  /** The arguments of the last call. */
  options(): string[]
}

const DOWN = 'Failed to access socket path: /run/fail2ban/fail2ban.sock. Is fail2ban running?'

const CLIENT = `#!/bin/sh
printf '%s\\n' "$@" >FOLDER/options
case "$*" in
  *'unban '*)
    [ ! -e FOLDER/down ] || { echo "2026-11-20 13:00:00,000 fail2ban [1]: ERROR   $(cat FOLDER/down)" >&2; exit 255; }
    for ip; do :; done
    sed -i "\\|^$ip |d" FOLDER/answers/*with-time
    . FOLDER/unbanned
    echo 1
    exit ;;
esac
printf 'Fail2Ban v1.0.2 reads log file that contains password failure report\\n\\nfail2ban> '
status=0
while read -r line; do
  if [ -e FOLDER/down ]; then
    echo "2026-11-20 13:00:00,000 fail2ban [1]: ERROR   $(cat FOLDER/down)" >&2
    status=255
  else
    cat "FOLDER/answers/$line"
    echo
  fi
  printf 'fail2ban> '
done
exit $status
`

const STORE = `
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("CREATE TABLE bips (ip, jail, timeofban, bantime, bancount, data)")
for jail, ip, began, seconds, matches in json.load(sys.stdin):
    data = json.dumps({"matches": matches, "failures": len(matches)})
    db.execute("INSERT INTO bips VALUES (?, ?, ?, ?, 2, ?)", (ip, jail, began, seconds, data))
db.commit()
`

/** For the tests of this file. */
export function standInFail2Ban(): StandInFail2Ban {
  const folder = temporaryFolder('client')
  const client = `${folder}/fail2ban-client`
  const database = `${folder}/fail2ban.sqlite3`
  writeFileSync(client, CLIENT.replaceAll('FOLDER', folder), { mode: 0o755 })
  const store: StandInFail2Ban['store'] = (bans) => {
    rmSync(database, { force: true })
    const rows = bans.map(([jail, ip, began, seconds, matches = []]) => {
      return [jail, ip, began, seconds, matches]
    })
    execFileSync('python3', ['-c', STORE, database], { input: JSON.stringify(rows) })
  }
  return {
    client,
    store,
    jails(jails) {
      rmSync(`${folder}/down`, { force: true })
      rmSync(`${folder}/answers`, { recursive: true, force: true })
      mkdirSync(`${folder}/answers`)
      for (const [question, answer] of Object.entries(answersOf(jails, database))) {
        writeFileSync(`${folder}/answers/${question}`, answer)
      }
      writeFileSync(`${folder}/unbanned`, '')
      store([])
    },
    onUnban: (script) => writeFileSync(`${folder}/unbanned`, script),
    breakStore: () => writeFileSync(database, 'this is no database, whatever its name says'),
    down: () => writeFileSync(`${folder}/down`, DOWN),
    options: () => readFileSync(`${folder}/options`, 'utf8').split('\n').slice(0, -1),
  }
}

function answersOf(jails: Record<string, StandInJail>, database: string): Record<string, string> {
  const names = Object.keys(jails)
  const answers: Record<string, string> = {
    status: `Status\n|- Number of jail:\t${names.length}\n\`- Jail list:\t${names.join(', ')}`,
    'get dbfile': `Current database file is:\n\`- ${database}`,
  }
  for (const [name, { actionban = 'f2b-firewall ban --ip "<ip>"', bans }] of Object.entries(
    jails,
  )) {
    answers[`get ${name} actions`] = `The jail ${name} has the following actions:\nremote`
    answers[`get ${name} action remote actionban`] = actionban
    answers[`get ${name} action remote port`] = 'ssh, 2222'
    answers[`get ${name} action remote protocol`] = 'tcp'
    answers[`get ${name} banip --with-time`] = bans.join('\n')
  }
  return answers
}
