import { XMLBuilder } from 'fast-xml-parser'

/** The two kinds of objects that this project touches. */
export type Kind = 'IPHost' | 'IPHostGroup'

/** An object as it is sent; the order of its keys is the order on the wire. */
export type Entity = { Name: string } & Record<string, unknown>

/** One request: one verb about one kind. The box is not known to take more in a request. */
export type Ask =
  | { verb: 'Login' }
  | { verb: 'Get'; kind: Kind; filter?: Filter }
  | { verb: 'Set'; kind: Kind; operation?: 'add' | 'update'; entities: Entity[] }
  | { verb: 'Remove'; kind: 'IPHost'; names: string[] }

/** The box heeds one key only; `like` is a plain substring. Compare again what comes back. */
export interface Filter {
  key: 'Name' | 'IPAddress'
  criteria: '=' | 'like'
  value: string
}

const builder = new XMLBuilder({
  ignoreAttributes: false,
  attributeNamePrefix: '@',
  suppressBooleanAttributes: false,
})

/**
 * The XML of a request. The builder escapes every value, the password's `&` and `<` included. No
 * APIVersion: the box then uses its own, an unknown one is refused (facts/sophos.md section 3).
 */
export function buildRequest(login: { user: string; pass: string }, ask: Ask): string {
  const Login = { Username: login.user, Password: login.pass }
  return builder.build({ Request: { Login, ...bodyOf(ask) } })
}

/** What `--verbose` says about a request: never the login. */
export function describeAsk(ask: Ask): string {
  if (ask.verb === 'Login') return 'Login'
  const head = `${ask.verb} ${ask.kind}`
  if (ask.verb === 'Get') {
    const { filter } = ask
    return filter ? `${head} ${filter.key} ${filter.criteria} "${filter.value}"` : head
  }
  const names = ask.verb === 'Remove' ? ask.names : ask.entities.map((entity) => entity.Name)
  const rest = names.length > 3 ? ` and ${names.length - 3} more` : ''
  const how = ask.verb === 'Set' && ask.operation ? ` (${ask.operation})` : ''
  return `${head}${how} ${names.slice(0, 3).join(' ')}${rest}`
}

/** How many answers a write must bring: one for each object. */
export function expectedAnswers(ask: Ask): number {
  if (ask.verb === 'Remove') return ask.names.length
  return ask.verb === 'Set' ? ask.entities.length : 0
}

function bodyOf(ask: Ask): object {
  if (ask.verb === 'Login') return {}
  if (ask.verb === 'Remove') return { Remove: { [ask.kind]: { Name: ask.names } } }
  if (ask.verb === 'Get') return { Get: { [ask.kind]: ask.filter ? filterOf(ask.filter) : '' } }
  const operation = ask.operation && { '@operation': ask.operation }
  return { Set: { ...operation, [ask.kind]: ask.entities } }
}

function filterOf(filter: Filter): object {
  const key = { '@name': filter.key, '@criteria': filter.criteria, '#text': filter.value }
  return { Filter: { key } }
}
