import { EXIT } from '../failure.ts'
import { run } from '../run.ts'
import type { Fail2Ban } from '../settings/fail2ban.ts'
import type { Problem } from './survey.ts'
import { plain } from './text.ts'

/** Seconds for each question. */
const PATIENCE = 20

/** Fail2Ban prints its configuration, and what it has banned, as literals of Python. */
const LITERALS = `
import ast, json, sys
for line in sys.stdin:
    try: print(json.dumps(ast.literal_eval(line)))
    except Exception: pass
`

/**
 * Jails that run without an action of ours that their configuration gives them: Fail2Ban's `reload`
 * drops an action that is new in a running jail, and its bans go nowhere from then on.
 *
 * @param isOurs tells from an `actionban` whether the action is meant
 * @returns nothing if Fail2Ban does not run, or says what we do not understand
 */
export async function missingActions(
  settings: Fail2Ban,
  isOurs: (command: string) => boolean,
): Promise<Problem[]> {
  const banned = await ask(settings, 'banned')
  if (banned.length !== 1) return []
  const running = (banned[0] as Record<string, unknown>[]).flatMap(Object.keys)
  const configured = actionsIn(await ask(settings, '-d'), isOurs)
  const problems: Problem[] = []
  for (const [jail, names] of configured) {
    if (!running.includes(jail)) {
      problems.push(problem(jail, `does not run, although it is enabled for ${names.join(', ')}`))
      continue
    }
    const { code, stdout } = await call(settings, ['get', jail, 'actions'])
    const has = stdout
      .split('\n')
      .slice(1)
      .join('\n')
      .split(/,\s*|\n/)
    const missing = code === 0 ? names.filter((name) => !has.includes(name)) : []
    if (missing.length === 0) continue
    problems.push(problem(jail, `runs without ${missing.join(', ')}: its bans go nowhere`))
  }
  return problems
}

function problem(jail: string, what: string): Problem {
  const text = plain(`jail "${jail}" ${what}: restart Fail2Ban (a reload is not enough)`)
  return { name: 'Fail2Ban', code: EXIT.config, text, severity: 'critical' }
}

/** The actions of ours by jail, as `fail2ban-client -d` lists what it would send. */
function actionsIn(lines: unknown[], isOurs: (command: string) => boolean): Map<string, string[]> {
  const found = new Map<string, string[]>()
  for (const line of lines) {
    if (!Array.isArray(line)) continue
    const [word, jail, kind, name, key, value] = line
    const pairs: unknown = word === 'multi-set' ? key : [[key, value]]
    if (kind !== 'action' || !Array.isArray(pairs)) continue
    const isMeant = pairs.some(
      (pair) => Array.isArray(pair) && pair[0] === 'actionban' && isOurs(String(pair[1])),
    )
    if (isMeant) found.set(String(jail), [...(found.get(String(jail)) ?? []), String(name)])
  }
  return found
}

async function ask(settings: Fail2Ban, word: string): Promise<unknown[]> {
  const { code, stdout } = await call(settings, [word])
  if (code !== 0) return []
  const read = await run('python3', ['-c', LITERALS], { input: stdout })
  return read.stdout.split('\n').flatMap((line) => (line ? [JSON.parse(line)] : []))
}

function call(settings: Fail2Ban, words: string[]) {
  const signal = AbortSignal.timeout(PATIENCE * 1000)
  const { client, socket, config_dir } = settings
  const options = [...(socket ? ['-s', socket] : []), ...(config_dir ? ['-c', config_dir] : [])]
  return run(client, [...options, ...words], { signal })
}
