/** What the document's Python program sends, request by request (facts/sophos.md section 1). */
import { request } from 'node:https'
import type { SophosSimulator } from '../sophosxg.ts'

const GROUP = 'f2b_blockings'

/** The verbs of the original against a simulator: a fresh connection and a GET for each request. */
export interface Original {
  start(): Promise<void>
  ban(ip: string): Promise<void>
  unban(ip: string): Promise<void>
  flush(): Promise<void>
}

export function originalOn(sim: SophosSimulator): Original {
  const ask = (body: string): Promise<string> => get(sim, body)
  const host = (ip: string, groups: string) =>
    `<Set><IPHost><Name>f2b_${ip}</Name><IPFamily>IPv4</IPFamily><HostType>IP</HostType><HostGroupList>${groups}</HostGroupList><IPAddress>${ip}</IPAddress></IPHost></Set>`
  const group = `<Set><IPHostGroup><Name>${GROUP}</Name><Description>managed, do not edit</Description><IPFamily>IPv4</IPFamily></IPHostGroup></Set>`
  const remove = (name: string) => ask(`<Remove><IPHost><Name>${name}</Name></IPHost></Remove>`)
  return {
    async start() {
      const groups = await ask('<Get><IPHostGroup></IPHostGroup></Get>')
      if (!groups.includes(`<Name>${GROUP}</Name>`)) await ask(group)
    },
    async ban(ip) {
      await ask(host(ip, `<HostGroup>${GROUP}</HostGroup>`))
    },
    async unban(ip) {
      const hosts = await ask('<Get><IPHost></IPHost></Get>')
      if (!hosts.includes(`<Name>f2b_${ip}</Name>`)) return
      await ask(host(ip, ''))
      await remove(`f2b_${ip}`)
    },
    async flush() {
      const groups = await ask('<Get><IPHostGroup></IPHostGroup></Get>')
      await ask(group)
      const members = groups.split(`<Name>${GROUP}</Name>`)[1]?.split('</IPHostGroup>')[0] ?? ''
      for (const [, name] of members.matchAll(/<Host>([^<]+)/g)) await remove(name ?? '')
    },
  }
}

function get(sim: SophosSimulator, body: string): Promise<string> {
  const login = '<Login><Username>apiuser</Username><Password>secret</Password></Login>'
  const xml = `<Request>${login}${body}</Request>`.replaceAll(' ', '%20')
  const options = { agent: false, rejectUnauthorized: false } as const
  return new Promise((resolve, reject) => {
    request(`${sim.url}?reqxml=${xml}`, options, (response) => {
      let text = ''
      response.on('data', (chunk) => {
        text += chunk
      })
      response.on('end', () => resolve(text))
    })
      .on('error', reject)
      .end()
  })
}
